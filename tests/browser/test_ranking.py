"""Ranking by keyboard, by mouse and by drag; undo and skip."""

import pytest
from playwright.sync_api import expect
from rank_page import RankPage

from feedback.actions.rankings import shown_ranks
from feedback.models import Ranking, Skip


@pytest.fixture
def rank_page(user_pages, annotator):
    return lambda name="ann", **kind: RankPage(user_pages.open(name, **kind))


def live_ranking(comparison: int) -> Ranking:
    return Ranking.objects.get(comparison_id=comparison, is_live=True)


def test_twelve_comparisons_by_keyboard_alone(comparisons, user_pages, annotator, keep):
    comparisons(count=12, size=4)
    page = user_pages.open()
    page.goto("/")
    page.keyboard.type("ann")
    page.keyboard.press("Tab")
    page.keyboard.type("ann-password")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="My projects").wait_for()
    keep(page, "home")
    ranking = RankPage(page)
    keep(page, "rank")
    given = {}
    for turn in range(12):
        ranks = [[1, 2, 3, 4], [2, 1, 1, 3], [1, 1, 1, 1]][turn % 3]
        ranking.rank_by_keys(ranks)
        assert ranking.ranks == ranks
        given[ranking.comparison] = ranks
        ranking.submit()
    expect(page.get_by_role("heading", name="Nothing to rank right now")).to_be_visible()
    ranking.expect_sent()
    keep(page, "rank-nothing")
    assert {each.comparison_id: shown_ranks(each) for each in Ranking.objects.all()} == given
    expect(page.locator("#today")).to_have_text("12")
    assert all(0 < each.seconds < 60 for each in Ranking.objects.all())


def test_enter_with_missing_ranks_names_them(comparisons, rank_page):
    comparisons(count=1)
    ranking = rank_page()
    ranking.press("2", "Enter")
    expect(ranking.page.locator("#state")).to_have_text("Not ranked yet: B and C")
    expect(ranking.page.locator(".completion.is-focused")).to_have_attribute("data-letter", "B")
    assert not Ranking.objects.exists()


def test_ranking_by_mouse(comparisons, rank_page):
    (comparison,) = comparisons(count=1)
    ranking = rank_page()
    for letter, rank in (("A", 3), ("B", 1), ("C", 1)):
        card = ranking.page.locator(f".completion[data-letter={letter}]")
        card.locator(".chips label", has_text=str(rank)).click()
    ranking.page.get_by_role("button", name="Submit").click()
    ranking.expect_sent()
    assert shown_ranks(live_ranking(comparison)) == [2, 1, 1]  # dense: no number is left out


def test_ranking_by_drag_with_a_tie(comparisons, rank_page, keep):
    (comparison,) = comparisons(count=1)
    ranking = rank_page()
    ranking.drag("A", 2)
    ranking.drag("B", 1)
    ranking.drag_from_corner("C", 2)
    keep(ranking.page, "rank-dragged")
    assert ranking.ranks == [2, 1, 2]
    ranking.drag("A", 1)
    assert ranking.ranks == [1, 1, 2]
    ranking.submit()
    ranking.expect_sent()
    assert shown_ranks(live_ranking(comparison)) == [1, 1, 2]


def test_arrows_move_the_mark_and_with_shift_the_rank(comparisons, rank_page):
    comparisons(count=1, size=2)
    ranking = rank_page()
    ranking.press("ArrowRight", "1")
    assert ranking.ranks == [0, 1]
    ranking.press("ArrowRight", "Shift+ArrowDown", "ArrowLeft", "1")
    assert ranking.ranks == [1, 2]
    ranking.press("Backspace")
    assert ranking.ranks == [0, 2]


def test_undo_withdraws_the_last_ranking_and_shows_it_unchanged(comparisons, rank_page, keep):
    comparisons(count=3)
    ranking = rank_page()
    page, first = ranking.page, ranking.comparison
    ranking.rank_by_keys([1, 2, 3])
    ranking.press("v", "c")
    page.keyboard.type("Close.")
    ranking.press("Escape")
    ranking.submit()
    second = ranking.comparison
    ranking.press("u")
    ranking.page.locator(f"form[data-comparison='{ranking.number_of(first)}']").wait_for()
    keep(page, "rank-undo")
    assert ranking.ranks == [1, 2, 3]
    expect(page.get_by_label("All good")).to_be_checked()
    expect(page.get_by_label("Comment")).to_have_value("Close.")
    expect(page.get_by_text("it does not count until you submit it again")).to_be_visible()
    expect(page.locator("#today")).to_have_text("0")
    expect(page.locator("#remaining")).to_have_text("3")
    assert not Ranking.objects.filter(is_live=True).exists()
    ranking.rank_by_keys([3])
    ranking.submit()
    assert ranking.comparison == second
    ranking.expect_sent()
    assert shown_ranks(live_ranking(first)) == [2, 1, 2]
    standings = Ranking.objects.filter(comparison_id=first).order_by("revision").values_list("standing", flat=True)
    assert list(standings) == ["counts", "withdrawn", "counts"]


def test_undo_reaches_further_back(comparisons, rank_page, user_pages):
    user_pages.expected_errors.append("404")  # at the end
    comparisons(count=5)
    ranking = rank_page()
    done = []
    for _ in range(4):
        done.append(ranking.comparison)
        ranking.rank_by_keys([1, 2, 3])
        ranking.submit()
    for comparison in reversed(done):
        ranking.press("u")
        ranking.page.locator(f"form[data-comparison='{ranking.number_of(comparison)}']").wait_for()
    ranking.press("u")
    expect(ranking.page.locator("#state")).to_have_text(
        "Nothing to undo: undo reaches your last ten rankings of the past 24 hours."
    )


def test_skip_with_a_reason_goes_on_to_the_next(comparisons, rank_page, keep):
    comparisons(count=2)
    ranking = rank_page()
    first = ranking.comparison
    ranking.press("s")
    ranking.page.get_by_label("Why?").fill("Not in my language")
    keep(ranking.page, "rank-skip")
    ranking.press("Enter")
    ranking.page.locator(f"form.comparison:not([data-comparison='{ranking.number_of(first)}'])").wait_for()
    ranking.expect_sent()
    assert list(Skip.objects.values_list("comparison_id", "reason")) == [(first, "Not in my language")]
    assert not Ranking.objects.exists()


def test_guidelines_and_keys_are_one_key_away(comparisons, rank_page, keep):
    comparisons(count=1)
    ranking = rank_page()
    ranking.press("g")
    expect(ranking.page.get_by_role("dialog", name="Guidelines")).to_contain_text("Be kind.")
    ranking.press("g", "?")
    expect(ranking.page.get_by_role("dialog", name="Keys")).to_be_visible()
    keep(ranking.page, "rank-keys")
    ranking.press("Escape")
    ranking.press("1")
    assert ranking.ranks == [1, 0, 0]


def test_a_reload_loses_neither_the_comparison_nor_the_ranks(comparisons, rank_page):
    comparisons(count=3)
    ranking = rank_page()
    comparison = ranking.comparison
    ranking.rank_by_keys([2, 1])
    ranking.page.reload()
    ranking.wait_until_ready()
    assert ranking.comparison == comparison
    assert ranking.ranks == [2, 1, 0]


def test_without_scripts_the_form_works(comparisons, browser, live_server, static_files, annotator):
    (comparison,) = comparisons(count=1, size=2)
    context = browser.new_context(java_script_enabled=False, base_url=live_server.url)
    page = context.new_page()
    page.goto("/sign-in/")
    page.fill("[name=username]", "ann")
    page.fill("[name=password]", "ann-password")
    page.click("main button")
    page.goto("/projects/support/rank/")
    page.check("[name=rank-0][value='2']", force=True)
    page.check("[name=rank-1][value='1']", force=True)
    page.get_by_role("button", name="Submit").click()
    expect(page.get_by_role("heading", name="Nothing to rank right now")).to_be_visible()
    context.close()
    assert shown_ranks(live_ranking(comparison)) == [2, 1]


@pytest.mark.full
def test_it_reads_well_in_the_dark_and_on_a_phone(comparisons, rank_page, keep):
    comparisons(count=4, size=4)
    keep(rank_page(dark=True).page, "rank-dark")
    phone = rank_page(phone=True)
    keep(phone.page, "rank-phone")
    assert phone.page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "it scrolls sideways"
    keep(rank_page(phone=True, dark=True).page, "rank-phone-dark")


@pytest.mark.full
def test_the_practice_page_guides_a_new_annotator_through_a_ranking(comparisons, rank_page, keep):
    comparisons(count=1)
    ranking = rank_page()
    page = ranking.page
    page.get_by_role("link", name="A short practice").first.click()
    page.locator("#tour[data-ready]").wait_for()
    keep(page, "tour")
    expect(page.get_by_text("A is current")).to_be_visible()
    ranking.press("3")
    expect(page.get_by_text("The next one is current now")).to_be_visible()
    ranking.press("Enter")  # too early: nothing happens
    ranking.press("1", "2")
    expect(page.get_by_text("may share a rank")).to_be_visible()
    ranking.press("1")
    expect(page.get_by_text("That is a tie")).to_be_visible()
    ranking.press("Enter")
    page.get_by_role("link", name="Start ranking").click()
    ranking.wait_until_ready()
    ranking.rank_by_keys([1, 2, 3])
    ranking.submit()
    ranking.expect_sent()
    page.reload()
    expect(page.get_by_text("New here?")).to_have_count(0)
    assert Ranking.objects.count() == 1


def test_the_boxes_are_labelled_best_and_worst(comparisons, rank_page):
    comparisons(count=1, size=4)
    ranking = rank_page()
    assert [ranking.box(rank).locator(".end").all_inner_texts() for rank in (1, 2, 3, 4)] == [
        ["best"],
        [],
        [],
        ["worst"],
    ]
    expect(ranking.page.get_by_role("group", name="Rank of completion A, 1 is best")).to_be_attached()


@pytest.mark.full
@pytest.mark.parametrize("phone", [False, True], ids=["desktop", "phone"])
def test_each_action_is_confirmed_by_a_message_beside_submit(comparisons, rank_page, keep, phone):
    comparisons(count=3, size=4)
    ranking = rank_page(phone=phone)
    state = ranking.page.locator(".submit-state")
    submit = ranking.page.get_by_role("button", name="Submit")
    ranking.press("1", "Enter")
    expect(state).to_have_text("Not ranked yet: B, C, and D")
    keep(ranking.page, f"rank-missing-{'phone' if phone else 'desktop'}")
    ranking.rank_by_keys([2, 3, 4])
    ranking.submit()
    expect(state).to_have_text("Stored. U undoes it.")
    expect(ranking.page.locator("#state")).to_have_text("Stored. U undoes it.")  # read aloud
    keep(ranking.page, f"rank-state-stored-{'phone' if phone else 'desktop'}")
    colours = [
        each.evaluate("(element) => getComputedStyle(element).color")
        for each in (state, ranking.page.locator(".quiet").first)
    ]
    assert colours[0] == colours[1]
    (state_box, submit_box) = (state.bounding_box(), submit.bounding_box())
    assert (
        abs(state_box["y"] + state_box["height"] - submit_box["y"]) < 200
        if phone
        else state_box["y"] >= submit_box["y"] - 8
    )
    ranking.press("s", "Enter")
    expect(state).to_have_text("Skipped. U undoes it.")
    expect(state).to_be_empty(timeout=8_000)


def test_a_skip_taken_back_keeps_ranks_flags_and_comment(comparisons, rank_page, project):
    project.flags = ["unsafe"]
    project.save()
    comparisons(count=2)
    ranking = rank_page()
    first = ranking.comparison
    ranking.rank_by_keys([2, 1])
    ranking.press("f", "c")
    ranking.page.keyboard.type("Both are late.")
    ranking.press("Escape", "s", "Enter")
    ranking.expect_sent()
    ranking.press("u")
    ranking.page.locator(f"form[data-comparison='{ranking.number_of(first)}']").wait_for()
    assert ranking.ranks == [2, 1, 0]
    expect(ranking.page.get_by_label("unsafe")).to_be_checked()
    expect(ranking.page.get_by_label("Comment")).to_have_value("Both are late.")


def test_an_undone_ranking_may_be_skipped_and_the_skip_undone(comparisons, rank_page):
    comparisons(count=2)
    ranking = rank_page()
    first = ranking.comparison
    ranking.rank_by_keys([1, 2, 3])
    ranking.submit()
    for _ in range(2):
        ranking.page.get_by_role("button", name="Undo").click()
        ranking.page.locator(f"form[data-comparison='{ranking.number_of(first)}']").wait_for()
        assert ranking.ranks == [1, 2, 3]
        ranking.press("s", "Enter")
        ranking.page.locator(f"form.comparison:not([data-comparison='{ranking.number_of(first)}'])").wait_for()
    ranking.expect_sent()
    assert Skip.objects.get().comparison_id == first
    assert not Ranking.objects.filter(is_live=True).exists()


def test_the_comment_grows_with_what_is_written(comparisons, rank_page):
    comparisons(count=1)
    ranking = rank_page()
    comment = ranking.page.get_by_label("Comment")
    before = comment.bounding_box()["height"]
    comment.fill("One line.\n" * 6)
    assert comment.bounding_box()["height"] > before + 80
    assert comment.evaluate("(element) => element.scrollHeight <= element.clientHeight + 1")


def test_a_submit_that_is_disabled_looks_the_same_below_the_pointer(comparisons, rank_page):
    comparisons(count=1)
    submit = rank_page().page.get_by_role("button", name="Submit")
    colours = "(element) => [getComputedStyle(element).color, getComputedStyle(element).backgroundColor]"
    before = submit.evaluate(colours)
    submit.hover()
    submit.page.wait_for_timeout(200)
    assert submit.evaluate(colours) == before


def test_the_pace_is_shown_after_the_first_ranking(comparisons, user_pages, annotator):
    comparisons(count=2)
    ranking = RankPage(user_pages.open("ann"))
    pace = ranking.page.locator(".rank-strip span", has_text="each")
    expect(pace).to_be_hidden()
    ranking.rank_by_keys([1, 2, 3])
    ranking.submit()
    expect(pace).to_be_visible()
