"""A comparison without a majority gets an extra ranking; managers see why a comparison was asked for."""

from uuid import uuid4

import pytest

from feedback import imports
from feedback.actions import rankings
from feedback.errors import Invalid
from feedback.queue import leases, sampling
from feedback.queue.extra_rankings import has_majority
from tests.factories import membership, person, rank_next

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(
    ("rankings", "expected"),
    [
        ([[1, 2]], True),
        ([[1, 2], [1, 2]], True),
        ([[1, 2], [2, 1]], False),
        ([[1, 2], [2, 1], [1, 2]], True),
        ([[1, 2], [2, 1], [1, 1]], False),
        ([[1, 1], [1, 1]], True),
        ([[1, 2], [1, 1]], True),
        ([[1, 2, 3], [1, 3, 2]], False),
    ],
)
def test_a_majority_is_needed_on_every_pair(rankings, expected):
    assert has_majority(rankings) is expected


def rank_first_position(member, rank):
    lease = leases.lease_next(member)
    by_position = [rank, 3 - rank]
    ranks = [by_position[position] for position in lease.display_order]
    return rankings.record_ranking(member, lease.pk, ranks, idempotency_key=uuid4(), seconds=1.0)


@pytest.fixture
def five(project):
    return [membership(person(project, f"p{index}", "annotator"), project) for index in range(5)]


@pytest.mark.slow
def test_one_more_ranking_is_requested_while_there_is_no_majority(five, project, work):
    project.extra_rankings = 2
    project.save()
    (comparison,) = work(1, wanted_rankings=2)
    rank_first_position(five[0], 1)
    rank_first_position(five[1], 2)
    work(1, wanted_rankings=2)
    third = rank_first_position(five[2], 1)
    assert third.comparison == comparison  # before what nobody has started
    assert third.reason == "disagreement"
    comparison.refresh_from_db()
    assert (comparison.wanted_rankings, comparison.open_slots, comparison.extra_rankings) == (3, 0, 1)
    assert rank_first_position(five[3], 1).comparison != comparison


@pytest.mark.slow
def test_the_project_limits_the_number_of_extra_rankings(five, project, work):
    project.extra_rankings = 1
    project.save()
    (comparison,) = work(1, wanted_rankings=2, size=2)
    rank_first_position(five[0], 1)
    rank_first_position(five[1], 2)
    lease = leases.lease_next(five[2])
    rankings.record_ranking(five[2], lease.pk, [1, 1], idempotency_key=uuid4(), seconds=1.0)
    comparison.refresh_from_db()
    assert (comparison.wanted_rankings, comparison.open_slots) == (3, 0)
    assert leases.lease_next(five[3]) is None


def test_agreement_requests_no_extra_ranking(five, project, work):
    project.extra_rankings = 3
    project.save()
    (comparison,) = work(1, wanted_rankings=2)
    rank_first_position(five[0], 1)
    rank_first_position(five[1], 1)
    comparison.refresh_from_db()
    assert (comparison.wanted_rankings, comparison.open_slots) == (2, 0)


def test_without_the_setting_no_extra_ranking_is_requested(five, work):
    (comparison,) = work(1, wanted_rankings=2)
    rank_first_position(five[0], 1)
    rank_first_position(five[1], 2)
    comparison.refresh_from_db()
    assert comparison.wanted_rankings == 2


@pytest.mark.slow
def test_a_ranking_has_the_reason_of_its_lease(ann, cole, work):
    work(1, wanted_rankings=2)
    assert rank_next(ann).reason == "sampled"
    second = rank_next(cole)
    assert second.reason == "started"
    revised = rankings.revise_ranking(cole, second.pk, [2, 1], idempotency_key=uuid4(), seconds=1.0)
    assert revised.reason == "started"


def test_a_sampling_rule_orders_new_comparisons(ann, project, work, monkeypatch):
    monkeypatch.setitem(sampling.RULES, "backwards", lambda project, new: [1 - index / 10 for index in range(len(new))])
    project.sampling_rule = "backwards"
    made = [comparison.pk for comparison in work(5)]
    assert [rank_next(ann).comparison_id for _ in range(5)] == made[::-1]


def test_a_rule_that_is_not_there_is_refused(project):
    project.sampling_rule = "guess"
    (ids,) = imports.add_prompts(project, [{"prompt": "a", "completions": ["x", "y"]}]).completion_ids
    with pytest.raises(Invalid, match=r"the rules are .*\brandom\b"):
        imports.add_comparisons(project, [ids])
