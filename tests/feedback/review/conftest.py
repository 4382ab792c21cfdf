"""A reviewer, a comparison on which two people disagree, and what became of it."""

from uuid import uuid4

import pytest

from feedback import export, judging, queue, review
from feedback.models import Comparison, Membership, Ranking
from tests.conftest import person
from tests.feedback.conftest import membership


@pytest.fixture
def rita(project) -> Membership:
    """A reviewer."""
    return membership(person(project, "rita", "reviewer"), project)


@pytest.fixture
def bea(project) -> Membership:
    return membership(person(project, "bea", "annotator"), project)


def rank_by_position(member, ranks, **said):
    """Rank the next comparison; `ranks` by position."""
    lease = queue.lease_next(member)
    shown = [ranks[position] for position in lease.display_order]
    return judging.record(member, lease.pk, shown, idempotency_key=uuid4(), seconds=2.0, **said)


def adjudicate(member, comparison, by_position, **said):
    order = queue.display_order(member, comparison)
    ranks = [by_position[position] for position in order]
    said = {"idempotency_key": uuid4(), "seconds": 4.0, **said}
    return review.adjudicate(member, comparison.pk, ranks, **said)


@pytest.fixture
def disputed(ann, cole, work) -> Comparison:
    """Ann prefers the first completion, Cole the second; a third ranking is wanted."""
    (comparison,) = work(1, wanted_rankings=3)
    rank_by_position(ann, [1, 2])
    rank_by_position(cole, [2, 1])
    return comparison


def of(member) -> Ranking:
    """Their last word, whatever became of it."""
    return Ranking.objects.filter(annotator=member.user_id).order_by("-id").first()


def counters(comparison):
    comparison.refresh_from_db()
    live = comparison.rankings.filter(is_live=True).count()
    held = comparison.leases.filter(lapsed_at__isnull=True).count()
    assert comparison.ranking_count == live
    if comparison.adjudicated_at is None:
        assert comparison.open_slots == comparison.wanted_rankings - live - held
    else:
        assert (comparison.open_slots, held) == (0, 0)
    return comparison.wanted_rankings, comparison.ranking_count, comparison.open_slots


def preferences(project):
    """(annotator's id, ranks) of what there is to learn from."""
    return sorted((row["annotator"], row["ranks"]) for row in export.rankings(project))


def said(member, ranks):
    return (export.pseudonym(member.user_id), ranks)
