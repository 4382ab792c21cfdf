"""Ranking details: strength, flags, a comment, a better answer."""

import pytest
from playwright.sync_api import expect
from rank_page import RankPage

from feedback.models import Demonstration, Ranking


def test_strength_flags_and_comment_by_keyboard(comparisons, user_pages, annotator, project, keep):
    project.strength_points, project.flags = 4, ["off topic", "unsafe"]
    project.save()
    comparisons(count=2, size=2)
    ranking = RankPage(user_pages.open("ann"))
    ranking.rank_by_keys([2, 1])
    ranking.press("Shift+3", "b", "c")
    ranking.page.keyboard.type("Both 2 long; see §3")
    ranking.press("Escape")
    ranking.page.get_by_label("unsafe").check(force=True)
    keep(ranking.page, "rank-extras")
    first = ranking.comparison
    ranking.page.reload()  # the draft holds all of it
    ranking.wait_until_ready()
    ranking.submit()
    ranking.expect_sent()
    stored = Ranking.objects.get(comparison_id=first)
    assert (stored.strength, stored.flags, stored.comment) == (3, ["all bad", "unsafe"], "Both 2 long; see §3")


@pytest.mark.full
def test_undo_restores_ranks_and_details(comparisons, user_pages, annotator):
    comparisons(count=2, size=3)
    ranking = RankPage(user_pages.open("ann"))
    ranking.rank_by_keys([1, 1, 1])
    ranking.press("v")
    ranking.submit()
    ranking.press("u")
    ranking.page.locator("form[data-withdrawn]").wait_for()
    expect(ranking.page.get_by_label("All good")).to_be_checked()
    ranking.press("v")
    ranking.submit()
    ranking.expect_sent()
    revisions = Ranking.objects.order_by("revision").values_list("standing", "flags")
    assert list(revisions) == [("counts", ["all good"]), ("withdrawn", ["all good"]), ("counts", [])]


@pytest.mark.full
def test_strength_is_offered_for_pairs_only_and_only_if_the_project_asks(comparisons, user_pages, annotator, project):
    comparisons(["a", "b"], ["a", "b", "c"])
    ranking = RankPage(user_pages.open("ann"))
    strength = ranking.page.locator(".strength")
    expect(strength).to_have_count(0)
    project.strength_points = 9
    project.save()
    for _ in range(2):
        ranking.page.reload()
        ranking.wait_until_ready()
        expect(strength).to_have_count(1 if len(ranking.texts) == 2 else 0)
        ranking.rank_by_keys([1] * len(ranking.texts))
        ranking.submit()


def test_a_better_answer_becomes_a_demonstration(comparisons, user_pages, annotator, keep):
    comparisons(count=1)
    ranking = RankPage(user_pages.open("ann"))
    ranking.press("w")
    ranking.page.get_by_label("Your answer").fill("A much better one, with 1 and 2.")
    keep(ranking.page, "rank-write")
    ranking.page.get_by_role("button", name="Store it").click()
    expect(ranking.page.locator("#state")).to_contain_text("Your answer is stored")
    demonstration = Demonstration.objects.get()
    assert demonstration.completion.text == "A much better one, with 1 and 2."
    assert demonstration.completion.author == annotator
    assert ranking.ranks == [0, 0, 0]
