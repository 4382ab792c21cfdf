"""Projects where one key ranks and submits a pair, and U undoes it."""

import pytest
from playwright.sync_api import expect
from rank_page import RankPage

from feedback.actions.rankings import shown_ranks
from feedback.models import Ranking

READING_TIME = 350  # ms; the page ignores keys pressed sooner


@pytest.fixture
def ranking(comparisons, user_pages, annotator, project) -> RankPage:
    project.one_key_pairs = True
    project.save()
    comparisons(count=5, size=2)
    page = RankPage(user_pages.open("ann"))
    page.page.wait_for_timeout(READING_TIME)
    return page


def press(ranking: RankPage, key: str) -> int:
    """Rank the pair on screen, wait for the next one, and return which it was."""
    before = ranking.comparison
    ranking.press(key)
    ranking.page.locator(f"form.comparison:not([data-comparison='{ranking.number_of(before)}'])").wait_for()
    ranking.page.wait_for_timeout(READING_TIME)
    return before


def ranks_of(comparison: int) -> list[int]:
    return shown_ranks(Ranking.objects.get(comparison_id=comparison, is_live=True))


def test_one_key_ranks_and_submits_a_pair(ranking, keep):
    keep(ranking.page, "rank-one-key")
    done = {press(ranking, key): ranks for key, ranks in (("1", [1, 2]), ("2", [2, 1]), ("3", [1, 1]))}
    ranking.expect_sent()
    assert {comparison: ranks_of(comparison) for comparison in done} == done
    expect(ranking.page.locator(".submit-state")).to_have_text("Stored. U undoes it.")


@pytest.mark.full
def test_a_pair_ranked_by_mistake_is_undone_and_corrected_by_one_key(ranking, keep):
    first = press(ranking, "1")
    ranking.press("u")
    ranking.page.locator(f"form[data-comparison='{ranking.number_of(first)}']").wait_for()
    chosen = ranking.page.get_by_role("button", name="A is better")
    expect(chosen).to_have_attribute("aria-pressed", "true")
    keep(ranking.page, "rank-one-key-undone")
    ranking.page.wait_for_timeout(READING_TIME)
    press(ranking, "2")
    ranking.expect_sent()
    assert ranks_of(first) == [2, 1]


def test_a_key_held_down_or_pressed_twice_ranks_one_pair(ranking):
    first = ranking.number
    ranking.page.keyboard.down("1")
    for _ in range(5):
        ranking.page.keyboard.down("1")  # repeats
    ranking.page.keyboard.up("1")
    ranking.page.locator(f"form.comparison:not([data-comparison='{first}'])").wait_for()
    ranking.expect_sent()
    assert Ranking.objects.count() == 1
    # Twice at once, in the page itself: a busy machine may take longer than a reader from one key to the next.
    second = ranking.number
    ranking.page.wait_for_timeout(READING_TIME)
    ranking.page.evaluate(
        """() => {
            for (let count = 0; count < 2; count += 1)
                document.body.dispatchEvent(new KeyboardEvent("keydown", { key: "1", code: "Digit1", bubbles: true }));
        }"""
    )
    ranking.page.locator(f"form.comparison:not([data-comparison='{second}'])").wait_for()
    ranking.expect_sent()
    assert Ranking.objects.count() == 2


@pytest.mark.full
def test_a_pair_is_ranked_by_mouse_with_flags_and_comment(ranking):
    first = ranking.number
    ranking.press("b", "c")
    ranking.page.keyboard.type("Neither.")
    ranking.press("Escape")
    ranking.page.get_by_role("button", name="Equally good").click()
    ranking.page.locator(f"form.comparison:not([data-comparison='{first}'])").wait_for()
    ranking.expect_sent()
    stored = Ranking.objects.get()
    assert (stored.flags, stored.comment, shown_ranks(stored)) == (["all bad"], "Neither.", [1, 1])


@pytest.mark.full
def test_other_sizes_and_other_projects_take_a_digit_for_each(comparisons, user_pages, annotator, project):
    comparisons(count=1, size=2)
    ranking = RankPage(user_pages.open("ann"))
    ranking.page.wait_for_timeout(READING_TIME)
    ranking.press("1")
    assert ranking.ranks == [1, 0]
    expect(ranking.page.locator(".choices")).to_have_count(0)
    project.one_key_pairs = True
    project.save()
    ranking.rank_by_keys([2])
    ranking.submit()
    comparisons(["a", "b", "c"])
    ranking.page.reload()
    ranking.wait_until_ready()
    expect(ranking.page.locator(".choices")).to_have_count(0)
    ranking.press("1")
    assert ranking.ranks == [1, 0, 0]


@pytest.mark.parametrize("dark", [pytest.param(False, marks=pytest.mark.full), True], ids=["light", "dark"])
def test_the_page_fits_a_phone(comparisons, user_pages, annotator, project, keep, dark):
    project.one_key_pairs = True
    project.save()
    comparisons(count=1, size=2)
    ranking = RankPage(user_pages.open("ann", phone=True, dark=dark))
    keep(ranking.page, f"rank-one-key-phone{'-dark' if dark else ''}")
    assert ranking.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
