"""The view "as written" shows every character of a text, to annotators and reviewers."""

import pytest
from playwright.sync_api import Page, expect
from rank_page import RankPage

from feedback import imports
from tests.factories import person

FLAT = "def f(x):\nif x:\nreturn  __x__"
INDENTED = "def f(x):\n    if x:\n        return  __x__"
SIGNS = "**bold** \n\ttab &lt; 1. a\r\nzero\u200bwidth\u200b\u200b\u200b"


def written(page: Page) -> list[str]:
    return page.locator(".completion > .written").all_inner_texts()


@pytest.mark.full
def test_one_key_shows_all_texts_as_written_for_the_whole_session(comparisons, user_pages, annotator, keep):
    comparisons([SIGNS, "plain"], [SIGNS, "other"])
    ranking = RankPage(user_pages.open("ann"))
    page = ranking.page
    assert page.locator(".written").count() == 0
    ranking.press("i")
    keep(page, "as-written")
    shown = next(text for text in written(page) if "bold" in text)
    assert shown == "**bold**·\n→\ttab &lt; 1. aU+000D\nzeroU+200BwidthU+200B×3"
    expect(page.locator(".prompt .written")).to_contain_text("Question")
    expect(page.locator(".completion > .prose:visible")).to_have_count(0)
    page.reload()
    ranking.wait_until_ready()
    assert len(written(page)) == 2
    ranking.press("1", "2")
    ranking.submit()
    assert len(written(page)) == 2, "the next comparison too"
    ranking.press("m")
    expect(page.locator("#state")).to_contain_text("press I first")
    page.locator(".completion [data-as-written]").first.click()
    assert written(page) == []


def test_indentation_is_seen_and_is_a_difference(comparisons, user_pages, annotator, keep):
    comparisons([FLAT, INDENTED])
    ranking = RankPage(user_pages.open("ann"))
    page = ranking.page
    indented = page.locator(".completion", has_text="def").filter(has=page.locator("[data-written*='    if']"))
    assert "\n        return" in indented.locator(".prose").inner_text()
    keep(page, "indentation")
    marked = page.locator(".completion.is-focused .prose").get_attribute("data-written")
    ranking.press("d")
    keep(page, "differences-of-indentation")
    differences = page.locator("ins.diff").all_inner_texts()
    assert len(differences) == 2
    assert all(("····" in each) == (marked == FLAT) for each in differences)
    ranking.press("d")
    assert written(page) == []


def test_texts_that_differ_in_markup_alone_differ(comparisons, user_pages, annotator):
    comparisons(["a **b** c", "a b c"])
    ranking = RankPage(user_pages.open("ann"))
    if "**" in ranking.page.locator(".completion.is-focused .prose").get_attribute("data-written"):
        ranking.press("ArrowRight")
    ranking.press("d")
    assert "".join(ranking.page.locator("ins.diff").all_inner_texts()) == "****"


@pytest.mark.full
def test_the_page_names_the_key_for_the_view_in_which_text_can_be_marked(comparisons, user_pages, annotator):
    comparisons([FLAT, INDENTED])
    ranking = RankPage(user_pages.open("ann"))
    state = ranking.page.locator("#state")
    for view in (["d"], ["i"], ["i", "d"]):
        ranking.press(*view, "m")
        expect(state).to_contain_text("only in the rendered view: press")
        ranking.press(state.inner_text()[-8].lower(), "m")
        expect(state).to_contain_text("Arrows choose a word")
        ranking.press("Escape")


def test_only_an_empty_answer_is_labelled_as_empty(project, user_pages, annotator, keep):
    row = {"prompt": "[Agent]: Hello!", "completions": ["[Agent]: Hello!\n[Customer]: Hi!", ""]}
    imports.add_prompts(project, [row], compare=True)
    page = RankPage(user_pages.open("ann")).page
    keep(page, "empty-answers")
    expect(page.get_by_text("(an empty answer)")).to_have_count(1)
    expect(page.locator(".prose", has_text="[Customer]: Hi!")).to_have_count(1)


def test_words_and_numbers_of_narrow_cells_do_not_break(comparisons, user_pages, annotator, keep):
    cells = "| Track | Length | Remarks of every kind |\n|---|---:|---|\n| 短线 | 200 | " + "long words here " * 6 + "|"
    comparisons([cells, "b", "c", "d"])
    page = RankPage(user_pages.open("ann", phone=True)).page
    keep(page, "narrow-cells")
    for text in ("200", "短线"):
        cell = page.locator("td", has_text=text).first
        height = (
            "(cell) => { const range = new Range(); range.selectNodeContents(cell); return range.getClientRects() }"
        )
        assert len(cell.evaluate(f"(cell) => [...({height})(cell)].map((box) => box.top)")) == 1


def test_a_reviewer_sees_them_as_written_too(project, comparisons, user_pages, keep):
    person(project, "rita", "reviewer")
    [comparison] = comparisons([FLAT, INDENTED])
    page = user_pages.open("rita")
    page.goto(f"/projects/{project.slug}/review/{comparison}/")
    page.locator("#review[data-ready]").wait_for()
    page.keyboard.press("i")
    keep(page, "review-as-written")
    assert sorted(text.count("·") for text in written(page)) == [0, 12]
    page.keyboard.press("d")
    expect(page.locator("ins.diff").first).to_be_visible()
