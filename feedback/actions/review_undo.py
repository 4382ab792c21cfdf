"""Decisions taken back: the rankings have the standing that they would have without them."""

from django.db import transaction
from django.db.models import F
from django.db.models.functions import Greatest
from django.utils import timezone
from django.utils.translation import gettext as _

from feedback.actions.review_revisions import (
    Kind,
    Standing,
    last_of,
    live_of,
    lock_comparisons,
    lock_reviewer,
    revise_all,
)
from feedback.errors import Conflict, NotFound
from feedback.models import Comparison, Lease, Membership, Ranking, Review
from feedback.queue import leases


@transaction.atomic(durable=True)
def undo(membership: Membership, review_id: int) -> Review:
    """Take a decision back. It stays in the record, with who took it back and when."""
    lock_reviewer(membership)
    own = Review.objects.filter(project_id=membership.project_id)
    # NO KEY: revisions that name the decision may still be written, by those who have their comparison locked.
    review = own.select_for_update(of=("self",), no_key=True).filter(pk=review_id).first()
    if review is None:
        raise NotFound(_("There is no such decision in this project."))
    if review.undone_at is not None:
        raise Conflict(_("This decision was undone already."))
    _UNDO[review.kind](review)
    review.undone_at, review.undone_by = timezone.now(), membership.user
    review.save(update_fields=["undone_at", "undone_by"])
    return review


def _undo_discard(review: Review) -> None:
    _restore(review, Standing.DISCARDED)


def _undo_return(review: Review) -> None:
    lease = Lease.objects.filter(comparison=review.comparison_id, annotator=review.annotator_id)
    found = lease.select_for_update(of=("self",)).first()
    lock_comparisons([review.comparison_id])
    if found is not None:
        leases.end_lease(found, slot_is_used=False)
    _restore(review, Standing.RETURNED)


def _undo_adjudication(review: Review) -> None:
    """The overruled count again, and so does what the reviewer had said before they settled it."""
    assert review.comparison_id is not None
    comparison = leases.lock_comparison(review.comparison_id)
    overruled = last_of(review, Standing.OVERRULED).values_list("pk", flat=True)
    revise_all(list(overruled), Standing.COUNTS, review, is_live=True)
    own = Ranking.objects.filter(comparison=comparison, annotator=review.reviewer_id).order_by("-revision")
    ended = own.filter(review=review).first()
    before = own.exclude(review=review).first()
    if ended is not None:
        revise_all([ended.pk], Standing.DISCARDED, review)
    if before is not None and before.standing == Standing.COUNTS:
        last = own.values_list("revision", flat=True)[0]
        revise_all([before.pk], Standing.COUNTS, review, is_live=True, revision=last + 1)
    live = live_of(comparison).count()
    Comparison.objects.filter(pk=comparison.pk).update(
        adjudicated_at=None,
        ranking_count=live,
        wanted_rankings=Greatest(F("wanted_rankings"), live),  # what was restored meanwhile has used a slot of its own
        open_slots=Greatest(F("wanted_rankings") - live, 0),
    )


_UNDO = {Kind.DISCARD: _undo_discard, Kind.RETURN: _undo_return, Kind.ADJUDICATION: _undo_adjudication}


def _restore(review: Review, standing: str) -> None:
    """Let what the review took out count again, except where something was said since."""
    lock_comparisons(list(last_of(review, standing).values_list("comparison_id", flat=True)))
    rows = list(last_of(review, standing).values_list("pk", "comparison_id", "comparison__adjudicated_at"))
    if not rows:
        raise Conflict(_("Its annotator has answered since, or settled the comparison: there is nothing to undo."))
    free = [(pk, comparison_id) for pk, comparison_id, adjudicated_at in rows if adjudicated_at is None]
    revise_all([pk for pk, _ in free], Standing.COUNTS, review, is_live=True)
    Comparison.objects.filter(pk__in=[comparison_id for _, comparison_id in free]).update(
        ranking_count=F("ranking_count") + 1,
        wanted_rankings=F("wanted_rankings") + Greatest(1 - F("open_slots"), 0),
        open_slots=Greatest(F("open_slots") - 1, 0),
    )
    for pk, comparison_id, adjudicated_at in rows:
        if adjudicated_at is not None:
            _overrule(pk, comparison_id)


def _overrule(ranking_id: int, comparison_id: int) -> None:
    """A ranking comes back to a comparison that was settled meanwhile."""
    open_one = Review.objects.get(comparison=comparison_id, kind=Kind.ADJUDICATION, undone_at__isnull=True)
    revise_all([ranking_id], Standing.OVERRULED, open_one, is_live=True)
    Comparison.objects.filter(pk=comparison_id).update(ranking_count=F("ranking_count") + 1)
