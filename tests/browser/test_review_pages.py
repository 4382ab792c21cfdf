"""Review and figures in a browser: by keyboard, by mouse, on a phone, dark, in Chinese."""

from uuid import uuid4

import pytest
from playwright.sync_api import Page, expect
from rank_page import RankPage
from test_accessibility import check
from test_languages import english_in

from feedback.actions import rankings, reviews
from feedback.models import Comparison, Membership, Ranking, Review
from feedback.queue import leases
from tests.factories import person


def rank_by_position(member: Membership, ranks: list[int], **fields) -> Ranking:
    lease = leases.lease_next(member)
    shown = [ranks[position] for position in lease.display_order]
    return rankings.record_ranking(member, lease.pk, shown, idempotency_key=uuid4(), seconds=4.0, **fields)


@pytest.fixture
def people(project, annotator, manager) -> list[Membership]:
    """Ann, Mona and the reviewer Rita."""
    person(project, "rita", "reviewer")
    every = Membership.objects.select_related("user", "project")
    return [every.get(user__username=name) for name in ("ann", "mona", "rita")]


@pytest.fixture
def disputed(project, comparisons, people) -> list[int]:
    """Three comparisons on which Ann and Mona disagree: on all three pairs, on two, on one."""
    project.wanted_rankings = 2
    project.save()
    ids = comparisons(
        ["# Yes\n\nIt comes on **Friday**.", "No idea.", "```python\nprint('Friday')\n```"],
        ["It comes on Friday.", "It comes on Friday, or on Saturday.", "Ask somebody else."],
        ["Good morning!", "Good evening!", "Good night!"],
    )
    others = [[3, 2, 1], [3, 1, 2], [1, 3, 2]]
    for member in people[:2]:
        for _ in ids:
            lease = leases.lease_next(member)
            by_position = [1, 2, 3] if member == people[0] else others[ids.index(lease.comparison_id)]
            shown = [by_position[position] for position in lease.display_order]
            comment = "The code is what was asked for." if member == people[1] else ""
            rankings.record_ranking(member, lease.pk, shown, idempotency_key=uuid4(), seconds=4.0, comment=comment)
    return ids


class ReviewPage:
    """One comparison under review."""

    def __init__(self, page: Page, comparison: int | None = None) -> None:
        self.page = page
        page.goto(f"/projects/support/review/{comparison}/" if comparison else "/projects/support/review/")
        if comparison is None:
            page.get_by_role("link", name="Start with the worst").click()
        self.wait_until_ready()

    def wait_until_ready(self) -> None:
        self.page.locator("#review[data-ready]").wait_for()

    @property
    def comparison(self) -> int:
        return int(self.page.url.split("/review/")[1].split("/")[0])

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def go(self, key: str) -> None:
        with self.page.expect_navigation():
            self.page.keyboard.press(key)
        self.wait_until_ready()


def test_a_reviewer_settles_disagreements_by_keyboard_alone(user_pages, disputed, keep):
    reviewing = ReviewPage(user_pages.open("rita"))
    assert reviewing.comparison == disputed[0]  # the worst
    expect(reviewing.page.locator(".case-rankings")).to_contain_text("The code is what was asked for.")
    keep(reviewing.page, "review")
    reviewing.go("n")
    assert reviewing.comparison == disputed[1]
    reviewing.go("n")
    reviewing.go("k")
    reviewing.go("p")
    assert reviewing.comparison == disputed[0]
    reviewing.press("Enter")  # says what is missing
    expect(reviewing.page.locator("#state")).to_contain_text("Not ranked yet")
    reviewing.press("1", "3", "2", "c")
    reviewing.page.keyboard.type("The others do not answer.")
    reviewing.press("Escape")
    keep(reviewing.page, "review-ranked")
    reviewing.go("Enter")
    assert reviewing.comparison == disputed[1]
    expect(reviewing.page.get_by_text("Settled: your ranking is the only one that counts.")).to_be_visible()
    settled = Ranking.objects.get(reason="adjudication")
    assert rankings.shown_ranks(settled) == [1, 3, 2]
    assert settled.seconds > 0
    assert settled.review.reason == "The others do not answer."
    reviewing.page.goto(f"/projects/support/review/{disputed[0]}/")
    reviewing.wait_until_ready()
    expect(reviewing.page.get_by_text("Settled by rita")).to_be_visible()
    keep(reviewing.page, "review-settled")
    reviewing.page.get_by_role("button", name="Undo").click()
    expect(reviewing.page.get_by_text("Undone.")).to_be_visible()
    assert Comparison.objects.get(pk=disputed[0]).adjudicated_at is None


def test_a_ranking_is_returned_and_its_annotator_answers(user_pages, disputed, keep):
    reviewing = ReviewPage(user_pages.open("rita"), disputed[0])
    reviewing.press("r")
    dialog = reviewing.page.get_by_role("dialog")
    dialog.get_by_role("radio", name="ann").check()
    dialog.get_by_label("What should the annotator look at again?").fill("Read the code once more.")
    keep(reviewing.page, "review-return")
    dialog.get_by_role("button", name="Return a ranking").click()
    expect(reviewing.page.locator(".case-rankings tr.returned")).to_contain_text("Read the code once more.")
    keep(reviewing.page, "review-returned")
    answering = RankPage(user_pages.open("ann"))
    assert answering.comparison == disputed[0]
    expect(answering.page.locator(".returned")).to_contain_text("Read the code once more.")
    assert sorted(answering.ranks) == [1, 2, 3]  # as Ann left it
    keep(answering.page, "rank-returned")
    check(answering.page)
    for completion in answering.page.locator(".completion").all():
        completion.locator(".chips label").first.click()
    answering.submit()
    answering.expect_sent()
    answer = Ranking.objects.get(annotator__username="ann", comparison=disputed[0], is_live=True)
    assert (answer.ranks, answer.revision) == ([1, 1, 1], 3)


def test_a_ranking_is_discarded_and_restored_by_mouse(user_pages, disputed):
    reviewing = ReviewPage(user_pages.open("rita"), disputed[1])
    reviewing.page.locator(".case-rankings tr", has_text="mona").get_by_role("button", name="Discard").click()
    dialog = reviewing.page.get_by_role("dialog")
    dialog.get_by_label("Why?").fill("Not read.")
    dialog.get_by_role("button", name="Discard a ranking").click()
    row = reviewing.page.locator(".case-rankings tr.discarded")
    expect(row).to_contain_text("Not read.")
    row.get_by_role("button", name="Undo").click()
    expect(row).to_have_count(0)
    assert Review.objects.get().undone_by.username == "rita"


@pytest.mark.full
def test_one_persons_work_is_gone_through_and_discarded_since_a_day(user_pages, disputed, people, keep):
    page = user_pages.open("mona")
    page.goto(f"/projects/support/review/people/{people[0].user_id}/")
    keep(page, "review-work")
    page.locator("td a").first.click()
    going = page.locator("#review[data-ready]")
    going.wait_for()
    expect(page.locator("tr.is-theirs")).to_contain_text("ann")
    with page.expect_navigation():
        page.keyboard.press("n")
    assert f"?of={people[0].user_id}" in page.url
    page.get_by_role("link", name="Work of ann").click()
    page.get_by_label("Since").fill("2020-01-01")
    page.get_by_role("button", name="Preview").click()
    page.get_by_label("Why?").fill("Clicked through.")
    keep(page, "review-discard-since")
    check(page)
    page.get_by_role("button", name="Discard 3 rankings").click()
    expect(page.get_by_text("3 rankings are discarded.")).to_be_visible()
    page.goto("/projects/support/review/decisions/")
    expect(page.get_by_text("discarded 3 rankings of ann")).to_be_visible()
    keep(page, "review-decisions")
    page.on("dialog", lambda asked: asked.accept())
    page.get_by_role("button", name="Undo").last.click()
    expect(page.get_by_text("undone by mona")).to_be_visible()
    assert Ranking.objects.filter(is_live=True, annotator=people[0].user).count() == 3


PAGES = ("review/", "review/people/", "review/decisions/", "figures/", "figures/mine/")


@pytest.mark.full
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_axe_finds_no_violation(user_pages, disputed, people, project, dark):
    project.annotators_see_quality = True
    project.save()
    discarded = Ranking.objects.get(annotator=people[0].user, comparison=disputed[2])
    reviews.discard(people[2], discarded.pk, reason="Not read.")
    page = user_pages.open("mona", dark=dark)
    for path in (*PAGES, f"review/people/{people[0].user_id}/", f"review/people/{people[0].user_id}/?since=2020-01-01"):
        page.goto(f"/projects/support/{path}")
        check(page)
    reviewing = ReviewPage(page, disputed[0])
    check(page)
    for key in ("?", "r", "x"):
        reviewing.press(key)
        check(page)
        reviewing.press("Escape")
    reviewing.press("1", "d", "l")
    check(page)
    reviewing.press("l", "1", "2")
    reviewing.go("Enter")
    page.goto(f"/projects/support/review/{disputed[0]}/")
    check(page)


@pytest.mark.full
def test_empty_pages_say_what_to_do(user_pages, project, manager, keep):
    page = user_pages.open("mona", language="zh-CN")
    for path in PAGES:
        page.goto(f"/projects/support/{path}")
        expect(page.locator(".empty h2")).to_be_visible()
        keep(page, f"{path.strip('/').replace('/', '-')}-empty-chinese")
        check(page)
        assert not english_in(page), path


def test_review_pages_fit_in_chinese_and_dark_on_a_phone(user_pages, disputed, people, project, keep):
    project.annotators_see_quality = True
    project.save()
    page = user_pages.open("mona", phone=True, dark=True, language="zh-CN")
    for path in PAGES[3:]:
        page.goto(f"/projects/support/{path}")
        keep(page, f"{path.strip('/').replace('/', '-')}-phone-chinese")
        assert not english_in(page) - {"rita"}
    page.goto(f"/projects/support/review/{disputed[2]}/")
    page.locator("#review[data-ready]").wait_for()
    keep(page, "review-phone-chinese")
    page.locator(".prose").evaluate_all("(all) => all.forEach((each) => each.remove())")
    page.locator("td.reason").evaluate_all("(all) => all.forEach((each) => each.remove())")
    assert not english_in(page)


def test_an_annotator_sees_their_own_figures_and_no_more(user_pages, disputed, project, keep):
    user_pages.expected_errors.append("403")
    page = user_pages.open("ann", phone=True)
    page.goto("/projects/support/rank/")
    page.get_by_role("link", name="My figures").click()
    expect(page.locator(".facts")).to_contain_text("Altogether")
    expect(page.get_by_text("How well")).to_have_count(0)
    keep(page, "figures-mine-phone")
    page.goto("/projects/support/figures/")
    expect(page.get_by_text("Only the project's managers")).to_be_visible()


@pytest.mark.full
def test_long_names_widen_no_page_on_a_phone(user_pages, disputed, people):
    people[0].user.username = "bartholomew.featherstonehaugh-cholmondeley@example.org"
    people[0].user.save()
    page = user_pages.open("mona", phone=True)
    for path in (*PAGES, f"review/people/{people[0].user_id}/", "people/", "console/"):
        page.goto(f"/projects/support/{path}")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, path


def test_a_manager_sees_everybodys_figures(user_pages, disputed, keep):
    page = user_pages.open("mona")
    page.goto("/projects/support/figures/")
    expect(page.locator("tbody tr", has_text="ann")).to_contain_text("4.0 s")
    keep(page, "figures")


def test_the_review_page_fits_a_phone(user_pages, disputed):
    page = user_pages.open("mona", phone=True)
    page.goto(f"/projects/support/review/{disputed[0]}/")
    expect(page.locator(".case-rankings")).to_be_visible()
    # A phone zooms out if the page is too wide, and `innerWidth` grows with it: so compare with a constant.
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
