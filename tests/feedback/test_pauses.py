"""Pauses of members whose answers to gold look like chance."""

from statistics import median
from uuid import uuid4

import numpy as np
import pytest
from scipy import stats

from feedback.actions import pauses, ranking_undo, rankings
from feedback.errors import Conflict
from feedback.models import Comparison, Lease, Pause, Ranking
from feedback.quality.checks import guessing
from feedback.queue import leases
from feedback.reports import routing as reports
from tests.factories import URL, client_of, membership
from tests.lengths import length

PASS_MARK = 0.8


@pytest.fixture
def gold(project, work) -> list[Comparison]:
    """Eight comparisons of gold to qualify with, whose first completion is the better one; and real work."""
    made = work(8)
    Comparison.objects.update(gold_ranks=[1, 2], wanted_rankings=100, open_slots=100)
    project.pauses_careless, project.qualification_items, project.qualification_percent = True, 8, 80
    project.save()
    work(2)
    return made


def answer(member, *, is_right: bool) -> Ranking:
    lease = leases.lease_next(member)
    by_position = [1, 2] if is_right else [2, 1]
    shown = [by_position[position] for position in lease.display_order]
    return rankings.record_ranking(member, lease.pk, shown, idempotency_key=uuid4(), seconds=1.0)


@pytest.mark.slow
@pytest.mark.django_db
def test_wrong_answers_to_gold_pause_a_member_until_a_manager_lets_them_go_on(project, gold, ann, mona, client):
    for _ in range(6):  # (½/0.2)⁶ ⋅ ½ > 100
        assert ann.paused_at is None
        answer(ann, is_right=False)
    assert leases.lease_next(ann) is None
    pause = Pause.objects.get()
    assert (pause.user, pause.made_by, pause.gold_answers, pause.gold_right) == (ann.user, None, 6, 0)
    with pytest.raises(Conflict):
        ranking_undo.undo_last(ann)
    client.force_login(ann.user)
    assert "looked like chance" in client.get("/projects/support/rank/").content.decode()
    client.force_login(mona.user)
    assert "0 of 6 were right" in client.get("/projects/support/people/").content.decode()
    client.post(f"/projects/support/people/{ann.user_id}/resume/")
    pause.refresh_from_db()
    assert pause.ended_by == mona.user
    ann.refresh_from_db()
    answer(ann, is_right=False)  # the test has begun again
    assert leases.lease_next(ann) is not None


@pytest.mark.slow
@pytest.mark.django_db
def test_right_answers_pause_nobody_and_nobody_is_paused_without_the_setting(project, gold, ann, cole):
    for _ in range(8):
        answer(ann, is_right=True)
    assert (ann.gold_answers, ann.gold_right, ann.paused_at) == (8, 8, None)
    project.pauses_careless = False
    project.save()
    for _ in range(8):
        answer(cole, is_right=False)
    assert cole.paused_at is None
    assert not Pause.objects.exists()


@pytest.mark.django_db
@pytest.mark.full
def test_only_the_first_answer_to_gold_counts(project, gold, ann):
    first = answer(ann, is_right=False)
    bets = ann.gold_bets
    ranking_undo.undo_last(ann)
    answer(ann, is_right=True)
    assert (ann.gold_answers, ann.gold_bets) == (1, bets)
    assert Ranking.objects.filter(comparison=first.comparison_id).count() == 3


@pytest.mark.django_db
def test_a_paused_member_submits_held_work_and_gets_nothing_more(project, work, ann, mona):
    work(3)
    lease = leases.lease_next(ann)
    pauses.pause(project, ann.user_id, mona.user)
    _ranking, following = rankings.record_ranking_and_lease(
        ann, lease.pk, [1, 2], beside=[lease.pk], idempotency_key=uuid4(), seconds=1.0
    )
    assert following is None
    assert leases.lease_next(ann) is None
    assert "Ask a manager when you can go on" in reports.reason_for_nothing(ann)
    assert not Lease.objects.filter(lapsed_at=None).exists()


@pytest.mark.django_db
@pytest.mark.full
def test_the_api_pauses_and_resumes_a_member_once(project, manager, annotator):
    api, url = client_of(manager), f"{URL}/members/{annotator.pk}"
    assert api.patch(url, {"paused": True}, format="json").json()["paused_at"]
    assert api.patch(url, {"paused": True}, format="json").status_code == 409
    assert api.patch(url, {"paused": False}, format="json").json()["paused_at"] is None
    assert api.patch(url, {"paused": False}, format="json").status_code == 409
    assert membership(annotator, project).paused_at is None
    assert client_of(annotator).patch(url, {"paused": False}, format="json").status_code == 403


def pause_times(right: np.ndarray) -> list[int | None]:
    """Return after how many answers each of the annotators is paused; right: [annotators, answers]."""
    times = []
    for answers in right.tolist():
        bets, paused = 0.0, None
        for step, is_right in enumerate(answers, start=1):
            bets = guessing.next_bet(bets, step, is_right, guessing.careful_on_gold(PASS_MARK))
            if guessing.wealth_of(bets, step) >= 1 / guessing.FALSE_ALARM_RATE:
                paused = step
                break
        times.append(paused)
    return times


@pytest.mark.full
def test_a_careful_member_is_paused_with_a_chance_of_at_most_1_in_100_over_all_their_work():
    people = length(full=20_000, short=300)
    random = np.random.default_rng(5)
    paused = sum(time is not None for time in pause_times(random.random((people, 1000)) < PASS_MARK))
    assert stats.binom.sf(paused - 1, people, guessing.FALSE_ALARM_RATE) > 0.001


def test_the_wealth_of_a_careful_member_is_not_expected_to_grow():
    """The property that the bound rests on, computed without simulation: E[wealth after | before] ≤ wealth before."""
    p = guessing.careful_on_gold(PASS_MARK)
    for step in range(1, 50):
        for bets in (0.0, 0.3, 7.0):
            before = bets + 1 / step
            after = [guessing.wealth_of(guessing.next_bet(bets, step, right, p), step) for right in (True, False)]
            assert p * after[0] + (1 - p) * after[1] == pytest.approx(before, rel=1e-12)
            assert 0.9 * after[0] + 0.1 * after[1] < before


def test_a_random_clicker_is_paused_after_about_20_gold_comparisons():
    random = np.random.default_rng(6)
    times = [time or 10_000 for time in pause_times(random.random((length(full=5_000, short=400), 300)) < 0.5)]
    assert 15 <= median(times) <= 23
    assert np.quantile(times, 0.95) < 80


def test_an_answer_to_gold_is_the_first_preference_that_the_right_ranking_has():
    assert guessing.is_right_on_gold([1, 2, 3], [1, 2, 3]) is True
    assert guessing.is_right_on_gold([1, 1, 2], [1, 2, 3]) is False
    assert guessing.is_right_on_gold([2, 1, 1], [1, 1, 2]) is False
    assert guessing.is_right_on_gold([2, 1], [1, 1]) is None
