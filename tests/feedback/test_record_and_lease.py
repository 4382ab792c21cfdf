"""A ranking and the lease of the next comparison are written in one transaction."""

from uuid import uuid4

import pytest
from django.utils import timezone

from feedback.actions import rankings
from feedback.errors import NotFound
from feedback.models import Comparison, Lease, Project, Ranking
from feedback.queue import leases
from tests.factories import rank_next

pytestmark = pytest.mark.django_db


def rank_and_lease_next(member, lease, *beside):
    fields = {"idempotency_key": uuid4(), "seconds": 2.0}
    return rankings.record_ranking_and_lease(member, lease.pk, [1, 2], beside=[each.pk for each in beside], **fields)


def test_the_next_comparison_is_leased_beside_those_already_held(ann, work):
    work(3)
    shown = leases.lease_next(ann)
    ahead = leases.lease_next(ann, beside=[shown.pk])
    ranking, following = rank_and_lease_next(ann, shown, ahead)
    assert ranking.comparison == shown.comparison
    assert following.comparison not in {shown.comparison, ahead.comparison}
    assert set(Lease.objects.values_list("pk", flat=True)) == {ahead.pk, following.pk}
    assert set(Comparison.objects.values_list("open_slots", flat=True)) == {0}


def test_the_lease_has_the_prompt_and_the_texts_in_display_order(ann, work):
    work(2)
    _, following = rank_and_lease_next(ann, leases.lease_next(ann))
    number = following.comparison.prompt.messages[-1]["content"].split()[-1]
    expected = [f"answer {place} to {number}" for place in following.display_order]
    assert following.comparison.texts(following.display_order) == expected


def test_at_the_end_of_the_work_the_ranking_is_kept(ann, work):
    work(1)
    _, following = rank_and_lease_next(ann, leases.lease_next(ann))
    assert following is None
    assert Ranking.objects.count() == 1


def test_a_held_lease_that_is_not_named_is_left_to_the_next_request(ann, work):
    work(3)
    shown = leases.lease_next(ann)
    ahead = leases.lease_next(ann, beside=[shown.pk])
    _, following = rank_and_lease_next(ann, shown)
    assert following is None
    assert leases.lease_next(ann) == ahead


def test_the_number_of_leases_is_limited_in_the_combined_request_too(ann, work):
    work(8)
    held = []
    for _ in range(leases.DEFAULT_MAX_LEASES):
        held.append(leases.lease_next(ann, beside=[lease.pk for lease in held]))
    _, following = rank_and_lease_next(ann, held[0], *held[1:])
    assert following is not None
    assert Lease.objects.count() == leases.DEFAULT_MAX_LEASES
    Lease.objects.filter(pk=held[1].pk).delete()
    ranking, _ = rank_and_lease_next(ann, held[2], held[3], held[4], following)
    assert ranking.comparison == held[2].comparison


def test_the_last_submit_before_the_project_was_archived_counts(ann, work):
    work(2)
    shown = leases.lease_next(ann)
    Project.objects.update(archived_at=timezone.now())
    ranking, following = rank_and_lease_next(ann, shown)
    assert (ranking.comparison, following) == (shown.comparison, None)


def test_expired_leases_are_reclaimed_before_the_next_lease(ann, cole, work):
    work(2)
    left = leases.lease_next(cole)
    shown = leases.lease_next(ann)
    Lease.objects.filter(pk=left.pk).update(expires_at=timezone.now())
    _, following = rank_and_lease_next(ann, shown)
    assert following is None
    assert leases.lease_next(ann).comparison == left.comparison


def test_a_refused_ranking_holds_nothing(ann, work):
    work(2)
    lease = leases.lease_next(ann)
    leases.release(ann, lease.pk)
    with pytest.raises(NotFound):
        rank_and_lease_next(ann, lease)
    assert not Lease.objects.exists()


def test_started_ones_come_first(ann, cole, work):
    work(4, wanted_rankings=2)
    started = rank_next(cole).comparison
    shown = leases.lease_next(ann)
    assert shown.comparison == started
    _, following = rank_and_lease_next(ann, shown)
    assert following.reason == Lease.Reason.SAMPLED
