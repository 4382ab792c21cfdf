"""Lost connections: no ranking is lost or doubled, and the page shows what it does."""

import pytest
from playwright.sync_api import Route, expect
from rank_page import RankPage

from feedback.models import Lease, Ranking


@pytest.fixture
def ranking(comparisons, user_pages, annotator) -> RankPage:
    comparisons(count=6, size=2)
    user_pages.expected_errors.append("Failed to load resource")
    page = RankPage(user_pages.open("ann"))
    page.page.wait_for_load_state("networkidle")  # the next one is here
    return page


def test_a_lost_connection_loses_no_ranking(ranking, keep):
    context = ranking.page.context
    first = ranking.comparison
    context.set_offline(True)
    ranking.rank_by_keys([1, 2])
    ranking.submit()  # the next one was fetched ahead
    second = ranking.comparison
    assert second != first
    expect(ranking.page.locator("#state")).to_contain_text("Waiting to be sent: 1")
    keep(ranking.page, "rank-offline")
    ranking.rank_by_keys([2, 1])
    ranking.press("Enter")
    expect(ranking.page.locator("#state")).to_contain_text("sent: 2")
    assert not Ranking.objects.exists()
    context.set_offline(False)
    ranking.expect_sent()
    expect(ranking.page.locator("#state")).to_be_empty()
    assert set(Ranking.objects.values_list("comparison_id", flat=True)) == {first, second}
    ranking.form.wait_for()
    assert ranking.comparison not in {first, second}


@pytest.mark.full
def test_a_reload_while_offline_work_waits_sends_it(ranking):
    first = ranking.comparison
    ranking.page.route("**/submit/", lambda route: route.abort())
    ranking.rank_by_keys([1, 2])
    ranking.submit()
    expect(ranking.page.locator("#state")).to_contain_text("sent: 1")
    ranking.page.unroute("**/submit/")
    ranking.page.reload()
    ranking.expect_sent()
    ranking.form.wait_for()
    assert ranking.comparison != first
    assert Ranking.objects.filter(comparison_id=first).count() == 1


def test_a_lost_response_makes_no_second_ranking(ranking):
    """The server has stored the ranking, but its answer never arrives: the same key is sent again."""
    lost = []

    def lose(route: Route) -> None:
        route.fetch()
        lost.append(route.request.post_data)
        route.abort() if len(lost) < 3 else route.continue_()

    ranking.page.route("**/submit/", lose)
    first = ranking.comparison
    ranking.rank_by_keys([1, 2])
    ranking.submit()
    ranking.expect_sent()
    assert len(lost) == 3
    assert Ranking.objects.filter(comparison_id=first).count() == 1


@pytest.mark.full
def test_a_submit_is_repeated_after_a_server_error(ranking):
    failures = iter([500, 503])

    def fail(route: Route) -> None:
        status = next(failures, None)
        route.fulfill(status=status, body="") if status else route.continue_()

    ranking.page.route("**/submit/", fail)
    ranking.rank_by_keys([1, 2])
    ranking.submit()
    expect(ranking.page.locator("#state")).to_contain_text("The server does not answer")
    ranking.expect_sent()
    assert Ranking.objects.count() == 1


def test_signed_out_elsewhere_keeps_the_ranking_until_signed_in(ranking, user_pages):
    ranking.page.context.clear_cookies(name="sessionid")
    ranking.rank_by_keys([1, 2])
    ranking.submit()
    expect(ranking.page.locator("#state")).to_contain_text("You are signed out")
    other = ranking.page.context.new_page()
    user_pages.sign_in(other, "ann")
    ranking.expect_sent()
    assert Ranking.objects.count() == 1


@pytest.mark.full
def test_another_user_in_the_same_browser_neither_sends_nor_loses_a_draft(ranking, user_pages, colleague):
    other = ranking.page.context.new_page()
    ranking.page.context.clear_cookies(name="sessionid")
    user_pages.sign_in(other, "cole")
    ranking.rank_by_keys([1, 2])
    ranking.submit()
    expect(ranking.page.locator("#state")).to_contain_text("You are signed out")
    assert not Ranking.objects.exists()
    ranking.page.context.clear_cookies(name="sessionid")
    user_pages.sign_in(other, "ann")
    ranking.expect_sent()
    assert Ranking.objects.get().annotator.username == "ann"


def test_a_comparison_that_is_no_longer_held_is_refused_in_words(ranking):
    Lease.objects.filter(annotator__username="ann").delete()
    ranking.rank_by_keys([1, 2])
    ranking.press("Enter")
    expect(ranking.page.locator("#notices")).to_contain_text("You do not hold this comparison")
    assert not Ranking.objects.exists()


@pytest.mark.full
@pytest.mark.parametrize("ahead", [1, 3])
def test_without_a_connection_the_prefetched_comparisons_can_be_ranked(project, ranking, ahead):
    project.comparisons_ahead = ahead
    project.save()
    page = ranking.page
    page.reload()
    ranking.wait_until_ready()
    page.wait_for_load_state("networkidle")
    page.context.set_offline(True)
    done = set()
    for _ in range(1 + ahead):
        done.add(ranking.comparison)
        ranking.rank_by_keys([1, 2])
        ranking.press("Enter")
    expect(page.get_by_text("Fetching the next comparison…")).to_be_visible()
    assert len(done) == 1 + ahead
    page.context.set_offline(False)
    ranking.expect_sent()
    ranking.form.wait_for()
    assert set(Ranking.objects.values_list("comparison_id", flat=True)) == done


@pytest.mark.full
def test_no_more_is_held_than_is_kept_ahead_and_the_rest_is_left_to_others(ranking):
    page = ranking.page
    for _ in range(2):
        assert Lease.objects.count() == 4  # on screen, and three ahead
        ranking.rank_by_keys([1, 2])
        ranking.submit()
        ranking.expect_sent()
        page.wait_for_load_state("networkidle")
