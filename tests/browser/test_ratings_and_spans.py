"""Ratings of completions, and text marked good or bad by keyboard, mouse and touch."""

import pytest
from playwright.sync_api import Page, expect
from rank_page import RankPage

from feedback.actions.ranking_details import shown_ratings
from feedback.actions.spans import shown_spans
from feedback.models import ComparisonItem, Ranking
from tests.browser.test_accessibility import check

MARKDOWN = "It is **on its way** and reaches you by *Friday*.\n\n- keep `the box`\n- throw it"


@pytest.fixture
def rated(project):
    project.attributes, project.flags = ["helpful", "honest"], ["off topic", "unsafe"]
    project.save()
    return project


def marked(ranking: Ranking) -> list[tuple[str, str]]:
    """Return the raw text of each span with its mark."""
    texts = ranking.comparison.texts(ranking.display_order)
    return [(texts[span["completion"]][span["start"] : span["end"]], span["mark"]) for span in shown_spans(ranking)]


def drag_over(page: Page, text: str) -> None:
    """Select this text with the mouse, in the first completion that has it."""
    box = page.evaluate(
        """(text) => {
            for (const prose of document.querySelectorAll(".completion .prose")) {
                const walker = document.createTreeWalker(prose, NodeFilter.SHOW_TEXT);
                while (walker.nextNode()) {
                    const at = walker.currentNode.data.indexOf(text);
                    if (at < 0) continue;
                    const range = document.createRange();
                    range.setStart(walker.currentNode, at);
                    range.setEnd(walker.currentNode, at + text.length);
                    const { left, right, top, height } = range.getBoundingClientRect();
                    return { left, right, y: top + height / 2 };
                }
            }
        }""",
        text,
    )
    page.mouse.move(box["left"] + 1, box["y"])
    page.mouse.down()
    page.mouse.move((box["left"] + box["right"]) / 2, box["y"], steps=3)
    page.mouse.move(box["right"] - 1, box["y"], steps=3)
    page.mouse.up()


def test_ratings_by_keyboard_are_kept_through_a_reload_and_undo(comparisons, user_pages, annotator, rated, keep):
    comparisons(count=2, size=3)
    ranking = RankPage(user_pages.open("ann"))
    ranking.rank_by_keys([2, 1, 3])
    ranking.press("ArrowLeft", "ArrowLeft", "r", "5", "4", "3", "2", "1", "1")
    keep(ranking.page, "rank-ratings")
    check(ranking.page)
    first = ranking.comparison
    ranking.page.reload()
    ranking.wait_until_ready()
    ranking.submit()
    ranking.expect_sent()
    stored = Ranking.objects.get(comparison_id=first)
    assert shown_ratings(stored) == {"helpful": [5, 3, 1], "honest": [4, 2, 1]}
    ranking.press("u")
    ranking.page.locator("form[data-withdrawn]").wait_for()
    ranking.press("r", "0")  # the first is rated: the key begins with it
    ranking.submit()
    ranking.expect_sent()
    assert shown_ratings(Ranking.objects.get(is_live=True)) == {"helpful": [None, 3, 1], "honest": [4, 2, 1]}


def test_after_escape_digits_rank_again(comparisons, user_pages, annotator, rated):
    comparisons(count=1, size=2)
    ranking = RankPage(user_pages.open("ann"))
    ranking.press("r", "4", "Escape", "2")
    assert ranking.ranks == [2, 0]


def test_ratings_by_mouse_and_flags_by_their_keys(comparisons, user_pages, annotator, rated, keep):
    comparisons(count=1, size=2)
    ranking = RankPage(user_pages.open("ann"))
    for place, rating in ((0, "4"), (1, "2")):
        group = ranking.page.get_by_role("group", name=f"honest, completion {'AB'[place]}")
        group.get_by_text(rating, exact=True).click()
    ranking.rank_by_keys([1, 2])
    ranking.press("h", "?")
    expect(ranking.page.locator("#help")).to_contain_text("Flag: unsafe")
    expect(ranking.page.locator("#help")).to_contain_text("helpful, honest")
    keep(ranking.page, "rank-keys-with-ratings")
    check(ranking.page)
    ranking.press("Escape")
    ranking.submit()
    ranking.expect_sent()
    stored = Ranking.objects.get()
    assert (shown_ratings(stored), stored.flags) == ({"honest": [4, 2]}, ["unsafe"])


@pytest.mark.full
def test_text_is_marked_by_mouse_and_the_mark_taken_away(comparisons, user_pages, annotator, keep):
    comparisons([MARKDOWN, "No."])
    ranking = RankPage(user_pages.open("ann"))
    page = ranking.page
    drag_over(page, "on its way")
    page.locator("#marker").get_by_role("button", name="Good").click()
    drag_over(page, "Friday")
    keep(page, "rank-marker")
    check(page)
    page.locator("#marker").get_by_role("button", name="Bad").click()
    drag_over(page, "the box")
    page.keyboard.press("-")
    keep(page, "rank-spans")
    check(page)
    assert page.evaluate("[CSS.highlights.get('good').size, CSS.highlights.get('bad').size]") == [1, 2]
    page.get_by_role("button", name="Bad: the box").click()
    page.reload()  # the draft holds the other two
    ranking.wait_until_ready()
    expect(page.locator(".mark")).to_have_count(2)
    ranking.rank_by_keys([1, 1])
    ranking.submit()
    ranking.expect_sent()
    assert marked(Ranking.objects.get()) == [("on its way", "good"), ("Friday", "bad")]


@pytest.mark.full
def test_text_is_marked_by_keyboard_alone_and_again_after_undo(comparisons, user_pages, annotator, keep):
    comparisons([MARKDOWN, MARKDOWN.replace("Friday", "Monday")])
    ranking = RankPage(user_pages.open("ann"))
    page = ranking.page
    ranking.press("m", "ArrowRight", "ArrowRight", "Shift+ArrowRight")
    keep(page, "rank-marking-by-keyboard")
    assert page.evaluate("getSelection().toString().trim()") == "on its"
    check(page)
    ranking.press("+", "ArrowDown", "ArrowDown", "-", "Escape", "1", "2")
    assert ranking.ranks == [1, 2]
    before = page.locator(".mark").all_inner_texts()
    ranking.submit()
    ranking.expect_sent()
    (good, bad) = marked(Ranking.objects.get())
    assert good == ("on its", "good")
    assert bad[1] == "bad" and bad[0] in MARKDOWN.split("\n\n")[1]
    ranking.press("u")
    page.locator("form[data-withdrawn]").wait_for()
    assert page.locator(".mark").all_inner_texts() == before
    ranking.submit()
    ranking.expect_sent()
    assert marked(Ranking.objects.get(is_live=True)) == [good, bad]


def test_a_new_mark_replaces_what_it_covers(comparisons, user_pages, annotator):
    comparisons([MARKDOWN, "No."])
    ranking = RankPage(user_pages.open("ann"))
    drag_over(ranking.page, " and reaches you by ")
    ranking.press("+")
    drag_over(ranking.page, "reaches you")
    ranking.press("-")
    drag_over(ranking.page, "you")
    ranking.press("Backspace")
    ranking.rank_by_keys([1, 2])
    ranking.submit()
    ranking.expect_sent()
    assert marked(Ranking.objects.get()) == [("and", "good"), ("reaches", "bad"), ("by", "good")]


def test_marks_outlast_a_look_at_the_differences(comparisons, user_pages, annotator):
    """Text cannot be marked in the view as written, which shows differences: the page shows a message."""
    comparisons([MARKDOWN, MARKDOWN.replace("Friday", "Monday")])
    ranking = RankPage(user_pages.open("ann"))
    drag_over(ranking.page, "throw")
    ranking.press("-", "d", "m")
    expect(ranking.page.locator("#state")).to_contain_text("Text can be marked only in the rendered view")
    ranking.press("d", "1", "2")
    ranking.submit()
    ranking.expect_sent()
    assert marked(Ranking.objects.get()) == [("throw", "bad")]


@pytest.mark.full
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_text_is_marked_by_touch_on_a_phone(comparisons, user_pages, annotator, rated, keep, dark):
    comparisons([MARKDOWN, "مرحبا، سيصل **طردك** يوم الخميس."])
    page = user_pages.open("ann", phone=True, dark=dark)
    ranking = RankPage(page)
    # On a touch screen the system makes the selection; the page only sees the result.
    page.evaluate(
        """() => {
            const words = [...document.querySelectorAll(".completion em")];
            const { firstChild } = words.find((each) => each.innerText === "*Friday*");
            getSelection().setBaseAndExtent(firstChild, 1, firstChild, 7);
        }"""
    )
    page.locator("#marker").get_by_role("button", name="Bad").tap()
    expect(page.get_by_role("button", name="Bad: Friday")).to_be_visible()
    page.locator(".completion .prose").last.scroll_into_view_if_needed()
    for group in page.locator(".rating").all():
        group.get_by_text("3", exact=True).tap()
    keep(page, f"rank-phone-ratings{'-dark' if dark else ''}")
    check(page)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    for card in page.locator(".completion .chips").all():
        card.get_by_text("1", exact=True).tap()
    page.get_by_role("button", name="Submit").tap()
    page.locator("[data-nothing]").wait_for()
    ranking.expect_sent()
    stored = Ranking.objects.get()
    assert marked(stored) == [("Friday", "bad")]
    assert shown_ratings(stored) == {"helpful": [3, 3], "honest": [3, 3]}


@pytest.mark.full
def test_hostile_text_is_marked_like_any_other(comparisons, user_pages, annotator):
    hostile = "pay \u202egnihton\u202c to\u200b <script>x</script> A\u0301 👩\u200d👧 &lt;b&gt; مرحبا " * 3
    comparisons([hostile, "word \r\n**star** " * 62_000])
    page = user_pages.open("ann")
    page.set_default_timeout(60_000)  # a megabyte of text on a busy machine
    ranking = RankPage(page)
    ranking.page.evaluate(
        "document.querySelectorAll('.completion').forEach((card) => card.classList.remove('is-folded'))"
    )
    for prose in ranking.page.locator(".completion .prose").all():
        prose.evaluate("(element) => getSelection().selectAllChildren(element)")
        ranking.press("-")
    ranking.rank_by_keys([1, 2])
    ranking.submit()
    ranking.expect_sent()
    stored = Ranking.objects.get()
    lengths = {span["completion"]: (span["start"], span["end"]) for span in stored.spans}
    texts = ComparisonItem.objects.filter(comparison=stored.comparison).order_by("position")
    for item in texts:
        assert lengths[item.position] == (0, len(item.completion.text.rstrip()))
