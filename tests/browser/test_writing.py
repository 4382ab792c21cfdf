"""A better answer is written in a panel beside the completions."""

import pytest
from playwright.sync_api import Page, expect
from rank_page import RankPage

from feedback.models import Demonstration, Ranking
from tests.browser.test_accessibility import check

WRITTEN = ["**Soon.**\n\n- by *post*\n", "# No\n\nidea_of_it", "Never."]


@pytest.fixture
def ranking(comparisons, desk, annotator) -> RankPage:
    comparisons(WRITTEN)
    return RankPage(desk.sit("ann"))


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


def test_what_is_not_changed_is_not_stored(ranking):
    ranking.press("w")
    ranking.page.get_by_role("button", name="Store it").click()
    expect(ranking.page.get_by_role("dialog", name="Write a better one")).to_be_visible()
    field(ranking.page).fill("Tomorrow, by post.")
    ranking.page.get_by_role("button", name="Store it").click()
    expect(ranking.page.locator(".submit-state")).to_contain_text("Your answer is stored")
    assert Demonstration.objects.get().completion.text == "Tomorrow, by post."


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


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_on_a_phone_every_completion_can_be_scrolled_clear_of_the_panel(comparisons, desk, annotator, keep, dark):
    comparisons(WRITTEN)
    page = desk.sit("ann", phone=True, dark=dark)
    RankPage(page)
    page.get_by_role("button", name="Write a better one").click()
    last = page.locator(".completion").last
    last.scroll_into_view_if_needed()
    page.evaluate("scrollTo({ top: document.documentElement.scrollHeight, behavior: 'instant' })")
    keep(page, f"rank-write-phone{'-dark' if dark else ''}")
    panel = page.get_by_role("dialog", name="Write a better one").bounding_box()
    box = last.bounding_box()
    assert box["y"] + box["height"] <= panel["y"]


def test_what_is_being_written_is_not_left_behind_by_a_submit(ranking):
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
