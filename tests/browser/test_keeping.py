"""Drafts and submits are kept when settings change, tabs compete, sessions end and leases run out."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from django.db.models import QuerySet
from django.utils import timezone
from playwright.sync_api import Dialog, Page, expect
from rank_page import RankPage

from feedback.actions.ranking_details import shown_ratings
from feedback.actions.rankings import shown_ranks
from feedback.models import Completion, Lease, Ranking, Skip
from feedback.queue import leases


@pytest.fixture
def rated(project):
    project.attributes, project.flags = ["helpful", "honest"], ["unsafe"]
    project.save()
    return project


def settled(page: Page) -> RankPage:
    """The ranking page with the next comparison fetched."""
    ranking = RankPage(page)
    page.wait_for_load_state("networkidle")
    return ranking


def set_hidden(page: Page, hidden: bool) -> None:
    page.evaluate(
        """(hidden) => {
            Object.defineProperty(document, "hidden", { configurable: true, get: () => hidden });
            document.dispatchEvent(new Event("visibilitychange"));
        }""",
        hidden,
    )


def leases_about_to_expire() -> QuerySet[Lease]:
    return Lease.objects.filter(expires_at__lt=timezone.now() + timedelta(seconds=30))


def wait_until(page: Page, happened: Callable[[], bool]) -> None:
    for _ in range(1200):  # a minute, for a busy machine
        if happened():
            return
        page.wait_for_timeout(50)
    raise AssertionError("it did not happen within a minute")


def is_showing(ranking: RankPage, comparison: int) -> None:
    expect(ranking.form).to_have_attribute("data-comparison", str(ranking.number_of(comparison)))


def test_after_a_change_of_settings_the_draft_keeps_the_parts_that_still_fit(
    comparisons, user_pages, annotator, rated, keep
):
    user_pages.expected_errors.append("400")
    comparisons(count=3, size=2)
    ranking = settled(user_pages.open("ann"))
    first = ranking.comparison
    rated.attributes = ["helpful", "harmless"]
    rated.save()
    ranking.rank_by_keys([2, 1])
    ranking.press("ArrowLeft", "r", "5", "4", "3", "2", "Escape", "c")
    ranking.page.keyboard.type("As before")
    ranking.press("Escape", "Enter")
    expect(ranking.page.locator("#notices")).to_contain_text('does not rate "honest"')
    is_showing(ranking, first)
    assert ranking.ranks == [2, 1]
    expect(ranking.page.get_by_role("group", name="harmless, completion A")).to_be_visible()
    keep(ranking.page, "rank-settings-changed")
    ranking.submit()
    ranking.expect_sent()
    expect(ranking.page.locator("#notices")).to_be_empty()
    stored = Ranking.objects.get()
    assert (stored.comparison_id, stored.comment, shown_ranks(stored)) == (first, "As before", [2, 1])
    assert shown_ratings(stored) == {"helpful": [5, 3]}
    expect(ranking.page.get_by_role("group", name="harmless, completion A")).to_be_visible()  # the next one too


def test_a_correction_that_new_settings_refuse_is_shown_again(comparisons, user_pages, annotator, rated):
    user_pages.expected_errors.append("400")
    comparisons(count=2, size=2)
    ranking = settled(user_pages.open("ann"))
    first = ranking.comparison
    ranking.rank_by_keys([1, 2])
    ranking.press("f")
    ranking.submit()
    ranking.press("u")
    is_showing(ranking, first)
    rated.flags = []
    rated.save()
    ranking.press("2", "Enter")
    expect(ranking.page.locator("#notices")).to_contain_text('no flag "unsafe"')
    is_showing(ranking, first)
    expect(ranking.page.get_by_label("unsafe")).to_have_count(0)
    assert ranking.ranks == [2, 2]
    ranking.submit()
    ranking.expect_sent()
    assert shown_ranks(Ranking.objects.get(is_live=True)) == [1, 1]


def test_a_comparison_that_arrives_late_is_not_shown_with_earlier_settings(comparisons, user_pages, annotator, rated):
    user_pages.expected_errors.append("400")
    comparisons(count=2, size=2)
    ranking = settled(user_pages.open("ann"))
    page, first, requests = ranking.page, ranking.comparison, []
    page.route("**/next/*", lambda route: route.continue_() if requests else requests.append(route))
    ranking.rank_by_keys([1, 2])
    ranking.press("f")
    ranking.submit()
    wait_until(page, lambda: requests)
    ranking.press("u")
    is_showing(ranking, first)
    late = requests[0].fetch()
    assert "unsafe" in late.text()
    rated.flags = []
    rated.save()
    ranking.press("2", "Enter")
    expect(page.locator("#notices")).to_contain_text('no flag "unsafe"')
    requests[0].fulfill(response=late)
    is_showing(ranking, first)
    expect(page.get_by_label("unsafe")).to_have_count(0)
    assert ranking.ranks == [2, 2]


def test_two_tabs_of_one_person_rank_nothing_twice(comparisons, user_pages, annotator):
    comparisons(count=4, size=2)
    one = settled(user_pages.open("ann"))
    other = settled(one.page.context.new_page())
    first = one.number
    assert other.number == first
    one.rank_by_keys([1, 2])
    one.submit()
    one.expect_sent()
    expect(other.page.locator("#state")).to_have_text("You ranked this one in another tab. Here is the next.")
    expect(other.form).not_to_have_attribute("data-comparison", str(first))
    for tab in (other, one, other):
        tab.page.wait_for_load_state("networkidle")
        if tab.page.locator("[data-nothing]").count():
            break
        tab.rank_by_keys([1, 2])
        tab.submit()
        tab.expect_sent()
    assert Ranking.objects.values("comparison").distinct().count() == Ranking.objects.count() == 4


@pytest.mark.full
def test_undo_pressed_quickly_goes_as_far_back_as_it_was_pressed(comparisons, user_pages, annotator):
    comparisons(count=13, size=2)
    ranking = settled(user_pages.open("ann"))
    done = []
    for _ in range(11):
        done.append(ranking.comparison)
        ranking.rank_by_keys([1, 2])
        ranking.submit()
    now = ranking.comparison
    ranking.press(*"u" * 10)
    is_showing(ranking, done[1])
    assert Ranking.objects.filter(is_live=True).count() == 1
    ranking.press("2")
    for following in (*done[2:], now):
        ranking.submit()
        is_showing(ranking, following)
    ranking.expect_sent()
    corrected = Ranking.objects.get(comparison_id=done[1], is_live=True)
    assert (corrected.revision, shown_ranks(corrected)) == (3, [1, 1])
    ranking.rank_by_keys([1, 2])
    ranking.submit()
    ranking.expect_sent()
    assert Ranking.objects.filter(is_live=True).count() == 12


def test_undo_and_writing_when_signed_out_show_a_message_and_lose_nothing(comparisons, user_pages, annotator):
    comparisons(count=2, size=2)
    ranking = settled(user_pages.open("ann"))
    page = ranking.page
    ranking.press("1")
    page.context.clear_cookies(name="sessionid")
    ranking.press("w", "Control+a")
    page.keyboard.type("It comes tomorrow.")
    page.get_by_role("button", name="Store it").click()
    waiting = "You are signed out: sign in in another tab. Waiting to be sent: 1"
    expect(page.locator("#state")).to_have_text(waiting)
    ranking.press("u")
    page.wait_for_load_state("networkidle")
    assert ranking.ranks == [1, 0]
    user_pages.sign_in(page, "ann")  # in this tab even
    ranking = RankPage(page)
    assert ranking.ranks == [1, 0]
    expect(page.locator("#state")).to_contain_text("Your answer is stored")
    assert Completion.objects.filter(text="It comes tomorrow.").count() == 1
    ranking.press("w")
    expect(page.get_by_label("Your answer")).to_have_value(ranking.texts[0])  # begins again


@pytest.mark.full
def test_a_hidden_tab_keeps_its_comparisons_and_a_break_does_not(comparisons, user_pages, annotator, project):
    project.lease_minutes = 1
    project.save()
    comparisons(count=3, size=2)
    page = user_pages.open("ann")
    page.clock.install()
    ranking = settled(page)
    set_hidden(page, True)
    Lease.objects.update(expires_at=timezone.now() + timedelta(seconds=1))
    with page.expect_response("**/renew/"):
        page.clock.fast_forward(21_000)
    wait_until(page, lambda: not leases_about_to_expire().exists())
    Lease.objects.update(expires_at=timezone.now() + timedelta(seconds=1))
    set_hidden(page, False)  # renewed at once
    wait_until(page, lambda: not leases_about_to_expire().exists())
    ranking.press("p")
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.clock.fast_forward(61_000)
    Lease.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    leases.sweep()  # an abandoned one is back for others
    assert not asked
    with page.expect_response("**/renew/"):
        page.keyboard.press("p")
    wait_until(page, lambda: not Lease.objects.filter(lapsed_at__isnull=False).exists())


@pytest.mark.full
def test_an_expired_comparison_that_others_ranked_shows_a_message(comparisons, user_pages, annotator):
    user_pages.expected_errors.append("409")
    comparisons(count=2, size=2)
    ranking = settled(user_pages.open("ann"))
    lease = Lease.objects.get(comparison_id=ranking.comparison)
    Lease.objects.filter(pk=lease.pk).update(lapsed_at=timezone.now(), expires_at=timezone.now())
    set_hidden(ranking.page, False)  # back again: nobody may take it, as no slot is open
    expect(ranking.page.locator("#state")).to_contain_text("Your time for this one ran out")
    ranking.rank_by_keys([1, 2])
    ranking.submit()
    expect(ranking.page.locator("#notices")).to_contain_text("it needs no more rankings")
    ranking.rank_by_keys([1, 2])
    ranking.submit()
    ranking.expect_sent()
    assert Ranking.objects.get().comparison_id != lease.comparison_id


def test_a_next_comparison_that_could_not_be_fetched_is_fetched_again(comparisons, user_pages, annotator):
    user_pages.expected_errors.append("Failed to load resource")
    comparisons(count=3, size=2)
    page = user_pages.open("ann")
    page.clock.install()
    page.route("**/next/*", lambda route: route.fulfill(status=502, body=""))
    page.route("**/submit/", lambda route: route.fulfill(status=200, body=""))  # stored, but no next one with it
    ranking = settled(page)
    ranking.rank_by_keys([1, 2])
    ranking.press("Enter")
    expect(page.get_by_text("Fetching the next comparison…")).to_be_visible()
    page.wait_for_load_state("networkidle")
    page.unroute("**/next/*")
    page.clock.fast_forward(3_100)
    ranking.form.wait_for()


@pytest.mark.full
def test_back_forward_and_visits_of_other_pages_lose_nothing(comparisons, user_pages, annotator):
    comparisons(count=3, size=2)
    ranking = settled(user_pages.open("ann"))
    first = ranking.comparison
    ranking.press("2")
    ranking.page.goto("/projects/support/figures/mine/")
    ranking.page.go_back()
    ranking.wait_until_ready()
    assert (ranking.comparison, ranking.ranks) == (first, [2, 0])


@pytest.mark.full
def test_a_skip_also_lowers_the_remaining_count(comparisons, user_pages, annotator):
    comparisons(count=3, size=2)
    ranking = settled(user_pages.open("ann"))
    expect(ranking.page.locator("#remaining")).to_have_text("3")
    ranking.press("s", "Enter")
    expect(ranking.page.locator("#remaining")).to_have_text("2")
    assert Skip.objects.count() == 1


def drafts(page: Page) -> str:
    return page.evaluate("JSON.stringify(Object.entries(localStorage).filter(([name]) => name.includes('draft')))")


def sign_out(page: Page) -> None:
    page.locator(".bar-end details.menu summary").click()
    page.get_by_role("button", name="Sign out").click()


@pytest.mark.full
def test_signing_out_removes_drafts_in_all_tabs(comparisons, user_pages, annotator):
    user_pages.expected_errors.append("Failed to load resource")
    comparisons(count=6, size=3)
    ranking = settled(user_pages.open("ann"))
    other = ranking.page.context.new_page()
    elsewhere = settled(other)
    for each in (ranking, elsewhere):
        each.rank_by_keys([2, 1])
        each.press("c")
        each.page.keyboard.type("A secret of ann's")
    assert "secret" in drafts(other)
    sign_out(ranking.page)
    ranking.page.wait_for_url("**/sign-in/**")
    expect(elsewhere.form).to_have_count(0)
    other.keyboard.type("more of it")
    assert drafts(other) == drafts(ranking.page) == "[]"
    assert "secret" not in other.content()
    other.goto("about:blank")


def test_signing_out_warns_of_unsent_rankings_and_keeps_them(comparisons, user_pages, annotator, keep):
    user_pages.expected_errors.append("Failed to load resource")
    comparisons(count=6, size=2)
    ranking = settled(user_pages.open("ann"))
    page, first = ranking.page, ranking.number
    page.route("**/submit/", lambda route: route.abort())
    ranking.rank_by_keys([2, 1])
    ranking.submit()
    ranking.rank_by_keys([1])  # a draft
    asked = []

    def answer(accepted: bool) -> Callable[[Dialog], None]:
        def settle(dialog: Dialog) -> None:
            asked.append(dialog.message)
            dialog.accept() if accepted else dialog.dismiss()

        return settle

    page.once("dialog", answer(False))
    sign_out(page)
    wait_until(page, lambda: len(asked) == 1)
    assert "Not yet stored by the server: 1." in asked[0]
    assert page.url.endswith("/rank/") and f"c{ranking.number}" in drafts(page)
    page.once("dialog", answer(True))
    page.get_by_role("button", name="Sign out").click()
    page.wait_for_url("**/sign-in/**")
    assert f"c{first}" in drafts(page)
    assert drafts(page).count("ranks") == 1
    page.unroute("**/submit/")
    user_pages.sign_in(page, "ann")
    RankPage(page)
    wait_until(page, Ranking.objects.exists)
    assert shown_ranks(Ranking.objects.get()) == [2, 1]


def test_an_archived_project_is_read_only_except_for_comparisons_in_progress(
    comparisons, user_pages, annotator, project, keep
):
    comparisons(count=2)
    ranking = settled(user_pages.open("ann"))
    page, first = ranking.page, ranking.comparison
    ranking.press("1")
    project.archived_at = timezone.now()
    project.save()
    page.reload()
    ranking.wait_until_ready()
    expect(page.get_by_text("You can still submit or skip this ranking, which you had begun.")).to_be_visible()
    keep(page, "rank-archived-begun")
    ranking.rank_by_keys([2, 3])
    ranking.submit()
    ranking.expect_sent()
    assert Ranking.objects.get().comparison_id == first
    page.reload()
    ranking.wait_until_ready()
    keep(page, "rank-archived")
    expect(page.get_by_text("you can read this comparison, but not rank it any more.")).to_be_visible()
    for part in (".chips", ".extras", ".dock"):
        expect(page.locator(part).first).to_be_hidden()
    ranking.press("1", "2", "3", "b", "s", "w", "m", "Enter")
    assert ranking.ranks == [0, 0, 0]
    expect(page.locator("dialog[open]")).to_have_count(0)
    assert Ranking.objects.count() == 1
