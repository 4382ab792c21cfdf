"""Reviewers' decisions about others' rankings: adjudicate, return, discard.

Nothing is edited or lost. A decision is a `Review`. Every ranking that it changes gets a further revision with another
standing, so that a client that reads the record by cursor gets the change.

    adjudicate  The reviewer ranks the comparison; only that ranking makes preferences. The others are overruled: they
                still count for agreement and quality checks; the reviewer's does not, because the reviewer saw the
                others. The comparison takes no further ranking, its leases end, and no extra ranking is requested.
                Gold cannot be adjudicated: its right ranking is known.
    return      The ranking does not count until its annotator has answered. The annotator gets the comparison again,
                with the earlier ranking and the reason, before new work. The answer is the next revision. The slot is
                held for a week and is then open to others.
    keep        The rankings of a comparison stay as they are, and it leaves the reviewers' lists of flagged comparisons
                and of surprising rankings.
    discard     The ranking leaves preferences, agreement and gold pass rates. Its slot opens for another annotator.
                Its own annotator is not offered the comparison again.

`review_undo.undo` undoes a decision.

Lock order: the reviewer's membership, leases, comparisons by id. No transaction waits for a second lease.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from time import sleep
from typing import Unpack
from uuid import UUID

from django.db import transaction
from django.db.models import Count, F, Q, QuerySet
from django.utils import timezone
from django.utils.translation import gettext as _

from feedback import validation
from feedback.actions import rankings
from feedback.actions.ranking_details import RankingDetails
from feedback.actions.review_revisions import (
    ADJUDICATION,
    MAX_REASON_LENGTH,
    Kind,
    Standing,
    check_reviewer,
    checked_reason,
    live_of,
    lock_comparisons,
    lock_live,
    lock_reviewer,
    revise_all,
    write_review,
    write_review_of,
)
from feedback.errors import Conflict, NotFound
from feedback.models import Comparison, Completion, Demonstration, Lease, Membership, Project, Ranking, Review
from feedback.models.rankings import WITHOUT_LEASE
from feedback.queue import lease_rows, locks

MAX_ATTEMPTS, PAUSE = 40, 0.05  # seconds between attempts to lock a comparison that somebody is submitting


class _Busy(Exception):
    """Another transaction has locked a lease of the comparison."""


def adjudicate(
    membership: Membership,
    comparison_id: int,
    ranks: Sequence[int],
    *,
    idempotency_key: UUID,
    seconds: float,
    reason: str = "",
    **details: Unpack[RankingDetails],
) -> Ranking:
    """Settle a comparison by the reviewer's own ranking.

    `ranks` follow the order in which the reviewer sees the completions (`lease_rows.display_order`). The other
    arguments are those of `rankings.record_ranking`.
    """
    reason = validation.text(reason, "The reason", MAX_REASON_LENGTH)
    for _attempt in range(MAX_ATTEMPTS):
        try:
            return _adjudicate(membership, comparison_id, ranks, idempotency_key, seconds, reason, details)
        except _Busy:
            sleep(PAUSE)
    raise Conflict(_("Somebody is submitting a ranking of this comparison right now: try again in a moment."))


@transaction.atomic(durable=True)
def _adjudicate(
    membership: Membership,
    comparison_id: int,
    ranks: Sequence[int],
    key: UUID,
    seconds: float,
    reason: str,
    details: RankingDetails,
) -> Ranking:
    lock_reviewer(membership)
    if duplicate := rankings.submitted_before(membership, key):
        return duplicate
    comparison = _lock_and_end_leases(membership, comparison_id)
    _check_adjudicable(membership, comparison)
    order = lease_rows.display_order(membership, comparison)
    displayed = Ranking(comparison_id=comparison.pk, size=comparison.size, display_order=order)
    max_seconds = rankings.seconds_since(comparison.created_at)
    fields = rankings.ranking_fields(displayed, membership.project, ranks, seconds, details, max_seconds=max_seconds)
    others = live_of(comparison).exclude(annotator=membership.user_id)
    count = others.count()
    review = write_review(membership, Kind.ADJUDICATION, reason, comparison_id=comparison.pk, ranking_count=count)
    if not count:
        raise Conflict(_("Nobody else has ranked this comparison yet: there is nothing to settle."))
    revise_all(others.values_list("pk", flat=True), Standing.OVERRULED, review, is_live=True)
    ranking = Ranking.objects.create(
        project_id=comparison.project_id,
        comparison_id=comparison.pk,
        annotator_id=membership.user_id,
        size=comparison.size,
        display_order=order,
        idempotency_key=key,
        revision=_end_earlier_ranking(membership, comparison) + 1,
        reason=ADJUDICATION,
        review=review,
        **fields,
    )
    _settle(comparison, review.created_at)
    rankings.announce(membership.project, ranking)
    return ranking


@transaction.atomic(durable=True)
def return_ranking(membership: Membership, ranking_id: int, *, reason: str) -> Review:
    """Return a ranking to its annotator, with a reason that they will read."""
    reason = checked_reason(reason)
    lock_reviewer(membership)
    ranking = lock_live(membership, ranking_id)
    if ranking.comparison.gold_ranks is not None:
        raise Conflict(
            _(
                "This is gold, which tests annotators. Returning it would show its annotator that it is gold: "
                "discard it instead."
            )
        )
    if ranking.comparison.adjudicated_at is not None:
        raise Conflict(_("This comparison is adjudicated: undo that first."))
    if not Membership.objects.filter(project=ranking.project_id, user=ranking.annotator_id).exists():
        raise Conflict(_("The annotator is not a member any more and could not answer: discard the ranking instead."))
    review = write_review_of(membership, Kind.RETURN, reason, ranking)
    revise_all([ranking.pk], Standing.RETURNED, review)
    Comparison.objects.filter(pk=ranking.comparison_id).update(ranking_count=F("ranking_count") - 1)
    lease_rows.hold_returned(ranking)
    return review


@transaction.atomic(durable=True)
def discard(membership: Membership, ranking_id: int, *, reason: str) -> Review:
    """Discard one ranking."""
    reason = checked_reason(reason)
    lock_reviewer(membership)
    ranking = lock_live(membership, ranking_id)
    review = write_review_of(membership, Kind.DISCARD, reason, ranking)
    _discard([ranking.pk], [ranking.comparison_id], review)
    return review


@transaction.atomic(durable=True)
def keep(membership: Membership, comparison_id: int, *, reason: str = "", needs_flag: bool = True) -> Review:
    """Leave the rankings of a comparison as they are. It leaves the reviewers' lists.

    needs_flag: raise Conflict if the comparison has no flag for review.
    """
    reason = validation.text(reason, "The reason", MAX_REASON_LENGTH)
    lock_reviewer(membership)
    if not Comparison.objects.filter(pk=comparison_id, project=membership.project_id).exists():
        raise NotFound(_("There is no such comparison in this project."))
    locks.lock_comparison(comparison_id)
    review = write_review(membership, Kind.KEEP, reason, comparison_id=comparison_id)
    flagged = flagged_rankings(membership.project).filter(comparison=comparison_id, created_at__lt=review.created_at)
    if needs_flag and not flagged:
        raise Conflict(_("This comparison has no flag for review."))
    return review


def flagged_rankings(project: Project) -> QuerySet[Ranking]:
    """Return the rankings that count and have a flag for review."""
    counting = Ranking.objects.counting_in(project).filter(comparison__gold_ranks__isnull=True)
    return counting.filter(flags__overlap=project.review_flags)


@dataclass(frozen=True)
class DiscardPreview:
    """Counts of what `discard_since` would take out."""

    rankings: int
    gold: int  # how many of them are of gold comparisons
    reopened: int  # comparisons that would want a ranking again


def discard_preview(membership: Membership, annotator_id: int, since: datetime) -> DiscardPreview:
    """Count what `discard_since` would take out. Its `expected` is the number of `rankings`."""
    check_reviewer(membership)
    discarded = _rankings_since(membership, annotator_id, since)
    is_gold = Q(comparison__gold_ranks__isnull=False)
    counts = discarded.aggregate(
        rankings=Count("pk"),
        gold=Count("pk", filter=is_gold),
        reopened=Count("pk", filter=~is_gold & Q(comparison__adjudicated_at__isnull=True)),
    )
    return DiscardPreview(**counts)


@transaction.atomic(durable=True)
def discard_since(membership: Membership, annotator_id: int, since: datetime, *, reason: str, expected: int) -> Review:
    """Discard all rankings of an annotator since a moment, in one transaction.

    `expected` is the number of rankings that the reviewer saw. If it differs by now, Conflict is raised and nothing
    changes. Adjudications and demonstrations stay: `review_undo.undo` and `demonstrations.discard` concern one each.
    """
    reason = checked_reason(reason)
    lock_reviewer(membership)
    since_then = _rankings_since(membership, annotator_id, since)
    comparison_ids = list(since_then.values_list("comparison_id", flat=True))
    lock_comparisons(comparison_ids)
    # Read again under the locks: rankings may have changed before they were taken.
    chosen = list(since_then.filter(comparison__in=comparison_ids).values_list("pk", "comparison_id"))
    if len(chosen) != expected:
        raise Conflict(
            _("There are %(now)s rankings to discard by now, not %(expected)s: look again.")
            % {"now": len(chosen), "expected": expected}
        )
    if not chosen:
        raise Conflict(_("There is nothing to discard."))
    review = write_review(membership, Kind.DISCARD, reason, annotator_id=annotator_id, ranking_count=len(chosen))
    _discard([pk for pk, _ in chosen], [comparison_id for _, comparison_id in chosen], review)
    return review


def _discard(ranking_ids: Sequence[int], comparison_ids: Sequence[int], review: Review) -> None:
    """Discard rankings of locked comparisons, one ranking of each comparison."""
    revise_all(ranking_ids, Standing.DISCARDED, review)
    discarded = Comparison.objects.filter(pk__in=comparison_ids)
    discarded.filter(adjudicated_at__isnull=True).update(open_slots=F("open_slots") + 1)
    discarded.update(ranking_count=F("ranking_count") - 1)


def _lock_and_end_leases(membership: Membership, comparison_id: int) -> Comparison:
    """Lock the comparison and end every lease of it. Raises _Busy if another transaction has locked one of them.

    A submit holds its lease's lock while it waits for the comparison. Waiting here for the lease would be a deadlock.
    """
    if not Comparison.objects.filter(pk=comparison_id, project=membership.project_id).exists():
        raise NotFound(_("There is no such comparison in this project."))
    held = Lease.objects.filter(comparison=comparison_id, lapsed_at__isnull=True)
    locked = [lease.pk for lease in held.select_for_update(of=("self",), skip_locked=True)]
    comparison = locks.lock_comparison(comparison_id)
    if held.exclude(pk__in=locked).exists():
        raise _Busy
    held.update(lapsed_at=timezone.now())
    return comparison


def _check_adjudicable(membership: Membership, comparison: Comparison) -> None:
    if comparison.gold_ranks is not None:
        raise Conflict(_("This is gold: its right ranking is known already."))
    if Demonstration.objects.filter(pair=comparison).exists():
        raise Conflict(_("This comparison belongs to a demonstration: discard the demonstration instead."))
    if comparison.adjudicated_at is not None:
        raise Conflict(_("This comparison is adjudicated already: undo that first, or revise it if it is yours."))
    if Completion.objects.filter(items__comparison=comparison, author=membership.user_id).exists():
        raise Conflict(_("You wrote one of these completions: somebody else has to settle this comparison."))


def _settle(comparison: Comparison, now: datetime) -> None:
    Comparison.objects.filter(pk=comparison.pk).update(
        adjudicated_at=now, open_slots=0, ranking_count=live_of(comparison).count()
    )


def _end_earlier_ranking(membership: Membership, comparison: Comparison) -> int:
    """End the reviewer's earlier ranking of the comparison. Returns its last revision, 0 if there is none."""
    revisions = Ranking.objects.filter(comparison=comparison, annotator=membership.user_id)
    revisions.filter(is_live=True).update(is_live=False)
    return revisions.order_by("-revision").values_list("revision", flat=True).first() or 0


def _rankings_since(membership: Membership, annotator_id: int, since: datetime) -> QuerySet[Ranking]:
    live = Ranking.objects.filter(project=membership.project_id, annotator=annotator_id, is_live=True)
    return live.filter(created_at__gte=since).exclude(reason__in=WITHOUT_LEASE)
