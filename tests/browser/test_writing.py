"""A better answer is written in a panel beside the completions."""

import pytest
from playwright.sync_api import Page, expect
from rank_page import RankPage

from feedback.export import formats
from feedback.models import Demonstration, Lease, Ranking
from tests.browser.test_accessibility import check

WRITTEN = ["**Soon.**\n\n- by *post*\n", "# No\n\nidea_of_it", "Never."]


@pytest.fixture
def ranking(comparisons, user_pages, annotator) -> RankPage:
    comparisons(WRITTEN)
    return RankPage(user_pages.open("ann"))


def field(page: Page):
    return page.get_by_label("Your answer")


def letter_of(ranking: RankPage, text: str) -> str:
    """Return the letter of the completion with this text."""
    return next("ABC"[place] for place, shown in enumerate(ranking.texts) if text in shown)


def test_it_starts_with_the_best_ranked_text_as_written(ranking):
    page = ranking.page
    ranks = [1 if "idea" in text else 2 for text in ranking.texts]
    ranking.rank_by_keys(ranks)
    ranking.press("w")
    expect(field(page)).to_have_value(WRITTEN[1])
    page.get_by_label("Start from").select_option(letter_of(ranking, "Soon"))
    expect(field(page)).to_have_value(WRITTEN[0])
    page.get_by_label("Start from").select_option("an empty page")
    expect(field(page)).to_have_value("")


def test_before_any_rank_it_starts_with_the_current_one(ranking):
    ranking.press("ArrowRight", "w")
    expect(ranking.page.get_by_label("Start from")).to_have_value("B")


@pytest.mark.full
def test_an_unchanged_completion_is_not_stored_as_an_answer(ranking):
    ranking.press("w")
    ranking.page.get_by_role("button", name="Store it").click()
    expect(ranking.page.get_by_role("dialog", name="Write a better one")).to_be_visible()
    field(ranking.page).fill("Tomorrow, by post.")
    ranking.page.get_by_role("button", name="Store it").click()
    expect(ranking.page.locator(".submit-state")).to_contain_text("Your answer is stored")
    assert Demonstration.objects.get().completion.text == "Tomorrow, by post."


@pytest.mark.full
def test_the_panel_covers_no_completion(ranking, keep):
    page = ranking.page
    ranking.press("w")
    field(page).press("End")
    page.keyboard.type(" And more.")
    keep(page, "rank-write")
    check(page)
    panel = page.get_by_role("dialog", name="Write a better one").bounding_box()
    for each in page.locator(".completion, .prompt, .dock button").all():
        box = each.bounding_box()
        beside = box["x"] + box["width"] <= panel["x"] or box["y"] >= panel["y"] + panel["height"]
        assert beside, each
    page.locator(".completion").nth(1).click(position={"x": 180, "y": 12})
    ranking.press("2")  # one may rank meanwhile
    assert ranking.ranks == [0, 2, 0]


@pytest.mark.parametrize("dark", [pytest.param(False, marks=pytest.mark.full), True], ids=["light", "dark"])
def test_on_a_phone_every_completion_can_be_scrolled_clear_of_the_panel(comparisons, user_pages, annotator, keep, dark):
    comparisons(WRITTEN)
    page = user_pages.open("ann", phone=True, dark=dark)
    RankPage(page)
    page.get_by_role("button", name="Write a better one").click()
    last = page.locator(".completion").last
    last.scroll_into_view_if_needed()
    page.evaluate("scrollTo({ top: document.documentElement.scrollHeight, behavior: 'instant' })")
    keep(page, f"rank-write-phone{'-dark' if dark else ''}")
    panel = page.get_by_role("dialog", name="Write a better one").bounding_box()
    box = last.bounding_box()
    assert box["y"] + box["height"] <= panel["y"]


def test_a_submit_is_refused_while_an_answer_is_being_written(ranking):
    page = ranking.page
    first = ranking.comparison
    ranking.rank_by_keys([1, 2, 3])
    ranking.press("w")
    page.keyboard.type("Better: ")
    page.locator(".completion").first.click(position={"x": 180, "y": 12})
    ranking.press("Enter")
    expect(page.locator(".submit-state")).to_have_text("Store or close your own answer first.")
    expect(field(page)).to_be_focused()
    assert ranking.comparison == first
    ranking.press("Escape", "w")
    assert field(page).input_value().startswith("Better: ")
    ranking.press("Escape", "Enter")
    ranking.expect_sent()
    assert Ranking.objects.count() == 1


def press_at_once(page: Page, *keys: dict) -> None:
    """Press keys before the browser runs any other task, as it happens when it is busy."""
    page.evaluate(
        """(keys) => keys.forEach((key) => document.activeElement.dispatchEvent(
            new KeyboardEvent("keydown", { ...key, bubbles: true, cancelable: true })))""",
        list(keys),
    )


def test_a_panel_that_is_closed_and_opened_at_once_keeps_the_focus(ranking):
    ranking.press("w")
    press_at_once(ranking.page, {"key": "Escape"}, {"key": "w"})
    ranking.page.wait_for_timeout(100)  # for the dialog's "close" event, which the page must not act on
    expect(field(ranking.page)).to_be_focused()


def test_an_answer_is_sent_even_if_the_panel_is_opened_again_at_once(ranking):
    ranking.press("w")
    ranking.page.keyboard.type("Better: ")
    press_at_once(ranking.page, {"key": "Enter", "ctrlKey": True}, {"key": "w"})
    expect(ranking.page.locator(".submit-state")).to_contain_text("Your answer is stored")
    assert Demonstration.objects.get().completion.text.startswith("Better: ")


def changes(page: Page):
    return page.get_by_role("region", name="Changes to the completion")


@pytest.mark.full
def test_the_differences_from_the_origin_show_while_one_edits(ranking, keep):
    page = ranking.page
    ranking.rank_by_keys([1 if "Never" in text else 2 for text in ranking.texts])
    ranking.press("w")
    expect(changes(page)).to_be_hidden()
    page.keyboard.press("Control+A")
    page.keyboard.type("Never by post.")
    expect(changes(page).locator("ins")).to_have_text(" by post")
    page.keyboard.press("Control+A")
    page.keyboard.type("Always.")
    expect(changes(page).locator("del")).to_have_text("Never")
    keep(page, "rank-write-changes")
    check(page)
    page.get_by_label("Start from").focus()
    page.once("dialog", lambda dialog: dialog.accept())
    page.get_by_label("Start from").select_option("an empty page")
    expect(changes(page)).to_be_hidden()


def test_one_key_edits_the_best_and_with_shift_an_empty_page(ranking):
    page = ranking.page
    ranking.press("Shift+W")
    expect(page.get_by_label("Start from")).to_have_value("")
    expect(field(page)).to_have_value("")
    page.keyboard.type("From nothing.")
    page.keyboard.press("Control+Enter")
    expect(page.locator(".submit-state")).to_contain_text("U undoes it")
    demonstration = Demonstration.objects.get()
    assert (demonstration.completion.text, demonstration.pair) == ("From nothing.", None)
    assert not Ranking.objects.exists()


def test_an_edited_completion_is_ranked_below_the_edit(ranking, project):
    page = ranking.page
    ranking.press("w")
    origin = field(page).input_value()
    page.keyboard.press("Control+End")
    page.keyboard.type(" Indeed.")
    page.keyboard.press("Control+Enter")
    expect(page.locator(".submit-state")).to_contain_text("Your answer is stored")
    (pair,) = formats.lines(project, "trl")
    assert (pair["chosen"][0]["content"], pair["rejected"][0]["content"]) == (f"{origin} Indeed.", origin)
    expect(page.locator("#today")).to_have_text("0")


@pytest.mark.full
def test_undo_takes_the_answer_back_and_opens_it_as_a_draft(ranking, project):
    page = ranking.page
    ranking.press("ArrowRight", "w")
    page.keyboard.press("Control+End")
    page.keyboard.type(" Hm.")
    written = field(page).input_value()
    page.keyboard.press("Control+Enter")
    expect(page.locator(".submit-state")).to_contain_text("Your answer is stored")
    ranking.rank_by_keys([1, 2, 3])
    ranking.submit()
    ranking.expect_sent()
    page.keyboard.press("u")  # the ranking
    ranking.form.wait_for()
    expect(page.locator(".notice")).to_contain_text("You have undone this ranking")
    page.keyboard.press("u")  # the answer before it
    expect(page.locator(".submit-state")).to_contain_text("your answer is a draft again")
    expect(field(page)).to_have_value(written)
    expect(page.get_by_label("Start from")).to_have_value("B")
    assert list(formats.lines(project, "trl")) == []
    page.keyboard.press("Control+Enter")
    expect(page.locator(".submit-state")).to_contain_text("Your answer is stored")
    assert Demonstration.objects.get().withdrawn_at is None


def test_an_answer_waits_for_the_connection_and_is_sent_before_the_ranking(ranking, user_pages):
    user_pages.expected_errors.append("Failed to load resource")
    page = ranking.page
    ranking.page.wait_for_load_state("networkidle")
    page.context.set_offline(True)
    ranking.press("Shift+W")
    page.keyboard.type("Written in a tunnel.")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#state")).to_contain_text("Waiting to be sent: 1")
    ranking.rank_by_keys([1, 2, 3])
    ranking.press("Enter")
    expect(page.locator("#state")).to_contain_text("sent: 2")
    page.context.set_offline(False)
    ranking.expect_sent()
    assert Demonstration.objects.get().created_at < Ranking.objects.get().created_at
    assert (
        page.evaluate("localStorage.getItem(`accord:drafts:${document.querySelector('#rank').dataset.user}`)") is None
    )


def test_a_refused_answer_stays_a_draft(ranking, user_pages):
    user_pages.expected_errors.append("Failed to load resource")
    page = ranking.page
    Lease.objects.all().delete()
    ranking.press("Shift+W")
    page.keyboard.type("Too late.")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#notices")).to_contain_text("You do not hold this comparison.")
    ranking.press("w")
    expect(field(page)).to_have_value("Too late.")
