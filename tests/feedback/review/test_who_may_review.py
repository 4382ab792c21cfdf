"""Permissions of reviewers; every decision needs a reason."""

from uuid import uuid4

import pytest
from django.utils import timezone

from feedback.actions import rankings, review_undo, reviews
from feedback.errors import Conflict, Forbidden, Invalid, NotFound
from feedback.models import Membership, Review
from feedback.queue import leases
from feedback.reports import review_cases
from tests.factories import add_work, adjudicate, rank_next
from tests.feedback.review.outcomes import last_revision

pytestmark = pytest.mark.django_db


def test_annotators_cannot_make_review_decisions(ann, cole, disputed):
    ranking = last_revision(cole)
    for act in (
        lambda: adjudicate(ann, disputed, [1, 2]),
        lambda: reviews.return_ranking(ann, ranking.pk, reason="x"),
        lambda: reviews.discard(ann, ranking.pk, reason="x"),
        lambda: reviews.discard_since(ann, cole.user_id, timezone.now(), reason="x", expected=1),
        lambda: reviews.discard_preview(ann, cole.user_id, timezone.now()),
        lambda: review_undo.undo(ann, 1),
    ):
        with pytest.raises(Forbidden):
            act()


def test_a_role_that_was_removed_meanwhile_gives_no_access(rita, ann, disputed):
    Membership.objects.filter(pk=rita.pk).update(role="annotator")
    with pytest.raises(Forbidden):
        reviews.discard(rita, last_revision(ann).pk, reason="x")


def test_reviewers_of_other_projects_find_nothing(ann, rita, stranger, disputed):
    elsewhere = stranger.memberships.get()
    ranking, decision = last_revision(ann), reviews.discard(rita, last_revision(ann).pk, reason="x")
    for act in (
        lambda: adjudicate(elsewhere, disputed, [1, 2]),
        lambda: reviews.return_ranking(elsewhere, ranking.pk, reason="x"),
        lambda: reviews.discard(elsewhere, ranking.pk, reason="x"),
        lambda: review_undo.undo(elsewhere, decision.pk),
    ):
        with pytest.raises(NotFound):
            act()


@pytest.mark.slow
@pytest.mark.parametrize("reason", ["", "  ", "x" * 1001, "a\x00", "\ud800"])
def test_a_decision_needs_a_reason_with_visible_text(ann, rita, disputed, reason):
    for act in (reviews.return_ranking, reviews.discard):
        with pytest.raises(Invalid):
            act(rita, last_revision(ann).pk, reason=reason)
    assert not Review.objects.exists()


def test_a_reviewer_sees_no_ranks_of_a_comparison_that_they_hold_themselves(rita, ann, project):
    (comparison,) = add_work(project, 1, wanted_rankings=2)
    rank_next(ann)
    assert review_cases.case(rita, comparison.pk).rankings
    lease = leases.lease_next(rita)
    with pytest.raises(Conflict, match="You hold this comparison"):
        review_cases.case(rita, comparison.pk)
    rankings.record_ranking(rita, lease.pk, [1, 2], idempotency_key=uuid4(), seconds=2.0)
    assert len(review_cases.case(rita, comparison.pk).rankings) == 2
