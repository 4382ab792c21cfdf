"""Meanings of flags and the reviewers' lists, in a browser."""

import pytest
from playwright.sync_api import expect
from rank_page import RankPage

from feedback.models import Demonstration, Ranking
from tests.browser.test_accessibility import check
from tests.factories import person


@pytest.mark.full
def test_a_manager_gives_flags_their_meanings_and_annotators_read_them(
    user_pages, project, manager, annotator, comparisons, keep
):
    page = user_pages.open("mona")
    page.goto("/projects/support/settings/")
    page.get_by_label("Flags: information").fill("typo")
    page.get_by_label("Flags: review").fill("odd, typo")
    page.get_by_label("Flags: not for training").fill("private")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text('The flag "typo" is in two lists')).to_be_visible()
    page.get_by_label("Flags: review").fill("odd")
    page.get_by_label("Flags: not for training").scroll_into_view_if_needed()
    keep(page, "settings-flags")
    page.get_by_role("button", name="Save").click()
    page.wait_for_load_state()
    project.refresh_from_db()
    assert (project.flags, project.information_flags, project.review_flags) == (["private"], ["typo"], ["odd"])
    comparisons(count=1)
    ranking = RankPage(user_pages.open("ann"))
    ranking.press("?")
    expect(ranking.page.get_by_text("Flag: private (not for training)")).to_be_visible()
    expect(ranking.page.get_by_text("Flag: odd (a reviewer looks at it)")).to_be_visible()


@pytest.mark.full
@pytest.mark.parametrize(
    ("dark", "phone"), [(False, False), (True, False), (True, True)], ids=["light", "dark", "phone"]
)
def test_a_reviewer_sees_flagged_comparisons_and_demonstrations(
    user_pages, project, annotator, comparisons, keep, dark, phone
):
    project.review_flags = ["odd"]
    project.save()
    person(project, "rita", "reviewer")
    comparisons(["Soon, by post.", "Never."])
    ranking = RankPage(user_pages.open("ann"))
    ranking.press("w", "Control+End")
    ranking.page.keyboard.type(" It is on its way.")
    ranking.press("Control+Enter")
    expect(ranking.page.locator("#state")).to_contain_text("Your answer is stored")
    ranking.press("1", "2", "f", "Enter")
    ranking.expect_sent()
    assert Ranking.objects.get(reason="sampled").flags == ["odd"]

    name = f"{'-phone' if phone else ''}{'-dark' if dark else ''}"
    page = user_pages.open("rita", dark=dark, phone=phone)
    page.goto("/projects/support/review/flagged/")
    keep(page, f"review-flagged{name}")
    check(page)
    page.get_by_role("link", name="Question 0?").click()
    keep(page, f"review-flagged-case{name}")
    check(page)
    page.get_by_role("button", name="Keep it as it is").click()
    expect(page.get_by_text("Nothing flagged")).to_be_visible()

    page.get_by_role("link", name="Demonstrations").click()
    keep(page, f"review-demonstrations{name}")
    check(page)
    page.get_by_role("link", name="beside its origin").click()
    expect(page.get_by_text("A demonstration and the completion that it was edited from.")).to_be_visible()
    check(page)
    page.go_back()
    page.locator("summary", has_text="Discard").click()
    page.get_by_label("Why?").fill("Not true.")
    page.keyboard.press("Enter")
    expect(page.get_by_text("Discarded: no round imitates it.")).to_be_visible()
    page.get_by_role("link", name="Decisions", exact=True).click()
    expect(page.get_by_text("discarded a demonstration of ann")).to_be_visible()
    assert not Demonstration.objects.counting_in(project).exists()
