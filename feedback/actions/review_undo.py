"""Undo of a reviewer's decision: the rankings get the standing that they would have without it."""

from django.db import transaction
from django.db.models import F
from django.db.models.functions import Greatest
from django.utils import timezone
from django.utils.translation import gettext as _

from feedback import audit
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
from feedback.models import Comparison, Lease, Membership, Ranking, Review, User
from feedback.queue import locks


@transaction.atomic(durable=True)
def undo(membership: Membership, review_id: int) -> Review:
    """Undo a decision. It stays in the record, with who undid it and when."""
    lock_reviewer(membership)
    reviews = Review.objects.filter(project_id=membership.project_id)
    # NO KEY: a plain FOR UPDATE would block other transactions that write revisions with this review as foreign key.
    review = reviews.select_for_update(of=("self",), no_key=True).filter(pk=review_id).first()
    if review is None:
        raise NotFound(_("There is no such decision in this project."))
    if review.undone_at is not None:
        raise Conflict(_("This decision was undone already."))
    apply(review, membership.user)
    return review


def apply(review: Review, user: User) -> None:
    """Undo a decision that is locked and has not been undone."""
    _UNDO[review.kind](review)
    review.undone_at, review.undone_by = timezone.now(), user
    review.save(update_fields=["undone_at", "undone_by"])
    audit.record("review.undo", review.project, review, after={"kind": review.kind}, actor=user)


def _undo_keep(review: Review) -> None:
    """Change no ranking: the comparison is in the reviewers' list again once the decision is marked as undone."""


def _undo_discard(review: Review) -> None:
    _restore(review, Standing.DISCARDED)


def _undo_return(review: Review) -> None:
    held = Lease.objects.filter(comparison=review.comparison_id, annotator=review.annotator_id)
    lease = held.select_for_update(of=("self",)).first()
    lock_comparisons([review.comparison_id])
    if lease is not None:
        locks.end_lease(lease, slot_is_used=False)
    _restore(review, Standing.RETURNED)


def _undo_adjudication(review: Review) -> None:
    """Restore the overruled rankings, and the ranking that the reviewer had made before the adjudication."""
    assert review.comparison_id is not None
    comparison = locks.lock_comparison(review.comparison_id)
    overruled = last_of(review, Standing.OVERRULED).values_list("pk", flat=True)
    revise_all(list(overruled), Standing.COUNTS, review, is_live=True)
    of_reviewer = Ranking.objects.filter(comparison=comparison, annotator=review.reviewer_id).order_by("-revision")
    adjudication = of_reviewer.filter(review=review).first()
    before = of_reviewer.exclude(review=review).first()
    if adjudication is not None:
        revise_all([adjudication.pk], Standing.DISCARDED, review)
    if before is not None and before.standing == Standing.COUNTS:
        last = of_reviewer.values_list("revision", flat=True)[0]
        revise_all([before.pk], Standing.COUNTS, review, is_live=True, revision=last + 1)
    live = live_of(comparison).count()
    Comparison.objects.filter(pk=comparison.pk).update(
        adjudicated_at=None,
        ranking_count=live,
        # Rankings restored meanwhile, by undoing other decisions, have used slots beyond those wanted.
        wanted_rankings=Greatest(F("wanted_rankings"), live),
        open_slots=Greatest(F("wanted_rankings") - live, 0),
    )


def _undo_demonstration(review: Review) -> None:
    """Restore a demonstration and its pair."""
    pair_id = review.demonstration.pair_id if review.demonstration else None
    if pair_id is not None:
        locks.lock_comparison(pair_id)
        revise_all(
            last_of(review, Standing.DISCARDED).values_list("pk", flat=True), Standing.COUNTS, review, is_live=True
        )
        Comparison.objects.filter(pk=pair_id).update(ranking_count=live_of(Comparison(pk=pair_id)).count())


_UNDO = {
    Kind.DEMONSTRATION: _undo_demonstration,
    Kind.KEEP: _undo_keep,
    Kind.DISCARD: _undo_discard,
    Kind.RETURN: _undo_return,
    Kind.ADJUDICATION: _undo_adjudication,
}


def _restore(review: Review, standing: str) -> None:
    """Restore the rankings that the review took out, unless their annotator has answered since."""
    lock_comparisons(list(last_of(review, standing).values_list("comparison_id", flat=True)))
    rows = list(last_of(review, standing).values_list("pk", "comparison_id", "comparison__adjudicated_at"))
    if not rows:
        raise Conflict(_("The annotator has ranked again since, or settled the comparison: there is nothing to undo."))
    free = [(pk, comparison_id) for pk, comparison_id, adjudicated_at in rows if adjudicated_at is None]
    revise_all([pk for pk, _ in free], Standing.COUNTS, review, is_live=True)
    # If another annotator has taken the slot meanwhile, the comparison wants one more ranking, and both count.
    Comparison.objects.filter(pk__in=[comparison_id for _, comparison_id in free]).update(
        ranking_count=F("ranking_count") + 1,
        wanted_rankings=F("wanted_rankings") + Greatest(1 - F("open_slots"), 0),
        open_slots=Greatest(F("open_slots") - 1, 0),
    )
    for pk, comparison_id, adjudicated_at in rows:
        if adjudicated_at is not None:
            _overrule(pk, comparison_id)


def _overrule(ranking_id: int, comparison_id: int) -> None:
    """Restore a ranking of a comparison that was adjudicated meanwhile."""
    adjudication = Review.objects.get(comparison=comparison_id, kind=Kind.ADJUDICATION, undone_at__isnull=True)
    revise_all([ranking_id], Standing.OVERRULED, adjudication, is_live=True)
    Comparison.objects.filter(pk=comparison_id).update(ranking_count=F("ranking_count") + 1)
