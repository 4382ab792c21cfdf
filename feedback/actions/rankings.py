"""Writes of an annotator: record a ranking, revise it, skip a comparison.

Each is one durable transaction that first locks the annotator's membership. If a browser sends one submit five times at
once, the requests are served one after the other: the first stores the ranking, the others return it.

`ranking_undo.py` undoes these actions; `reviews.py` holds the decisions of reviewers.
"""

import math
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, Unpack
from uuid import UUID

from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext as _
from psycopg.types.json import Jsonb

from feedback import statements, validation, webhooks
from feedback.actions import pauses, ranking_details
from feedback.actions.ranking_details import RankingDetails
from feedback.errors import Conflict, Invalid, NotFound
from feedback.imports.rows import dense
from feedback.models import Comparison, Lease, Membership, Project, Ranking, Skip
from feedback.queue import claim, extra_rankings, gold, leases, locks

MAX_SECONDS = 24 * 3600.0
CLOCK_SLACK = 5.0  # seconds by which the clocks of web hosts and browsers may disagree
RANKING = statements.columns(Ranking, "feedback_ranking")
SUBMITTED_BEFORE = f"SELECT {RANKING} FROM feedback_ranking WHERE annotator_id = %s AND idempotency_key = %s"
# The slot of the lease becomes the ranking's, so `open_slots` does not change. The columns are all those of Ranking
# that a submit decides; the others have database defaults.
WRITE_RANKING = f"""
    WITH ended AS (DELETE FROM feedback_lease WHERE id = %(lease)s),
        counted AS (UPDATE feedback_comparison SET ranking_count = ranking_count + 1 WHERE id = %(comparison)s)
    INSERT INTO feedback_ranking (project_id, comparison_id, annotator_id, size, ranks, display_order, seconds, comment,
        strength, flags, ratings, spans, reason, idempotency_key, revision, is_live, created_at)
    VALUES (%(project)s, %(comparison)s, %(annotator)s, %(size)s, %(ranks)s, %(display_order)s, %(seconds)s,
        %(comment)s, %(strength)s, %(flags)s, %(ratings)s, %(spans)s, %(reason)s, %(key)s, %(revision)s, true, %(now)s)
    RETURNING {RANKING}"""


@transaction.atomic(durable=True)
def record_ranking_and_lease(
    membership: Membership,
    lease_id: UUID,
    ranks: Sequence[int],
    *,
    beside: Collection[UUID],
    idempotency_key: UUID,
    seconds: float,
    **details: Unpack[RankingDetails],
) -> tuple[Ranking, Lease | None]:
    """Record a ranking and lease the next comparison in one transaction, which waits for the disk only once.

    The lease is None if leasing would have to wait for a lock, or nothing is left: call `leases.lease_next` then.
    """
    ranking = _record(membership, lease_id, ranks, idempotency_key=idempotency_key, seconds=seconds, **details)
    return ranking, leases.lease_without_waiting(membership, beside)


@transaction.atomic(durable=True)
def record_ranking(
    membership: Membership,
    lease_id: UUID,
    ranks: Sequence[int],
    *,
    idempotency_key: UUID,
    seconds: float,
    **details: Unpack[RankingDetails],
) -> Ranking:
    """Store the member's ranking of the comparison that they hold, and end the lease.

    `ranks` follow the order of display: `ranks[0]` is the rank of the completion shown first. 1 is best and equal
    numbers are ties. Only their order counts: (2, 4, 4) is stored as (1, 2, 2). `seconds` is the time spent, as the
    page measured it; at most the lease's age is stored. `details` must be what the project asks for.

    The same `idempotency_key` again returns the first ranking and ignores everything else. If the lease has expired,
    the ranking is stored if a slot is still open. Otherwise Conflict is raised and nothing is stored.

    If a reviewer returned an earlier ranking of the comparison, or the annotator withdrew it, this one is the next
    revision.
    """
    return _record(membership, lease_id, ranks, idempotency_key=idempotency_key, seconds=seconds, **details)


def _record(
    membership: Membership,
    lease_id: UUID,
    ranks: Sequence[int],
    *,
    idempotency_key: UUID,
    seconds: float,
    **details: Unpack[RankingDetails],
) -> Ranking:
    locks.lock_member(membership)
    if duplicate := submitted_before(membership, idempotency_key):
        return duplicate
    lease = locks.lock_lease(membership, lease_id)
    # A renewal keeps `taken_at`, so offline work and long reading stay within the lease's age.
    max_seconds = seconds_since(lease.taken_at) + (lease.withdrawn.seconds if lease.withdrawn else 0.0)
    fields = ranking_fields(lease, membership.project, ranks, seconds, details, max_seconds=max_seconds)
    if lease.lapsed_at is not None and not locks.take_slot_again(membership, lease):
        raise Conflict(
            _(
                "Your time for this comparison ran out, and others have ranked it in the meantime: it needs no more "
                "rankings. Take the next one."
            )
        )
    previous = previous_ranking(lease)
    if previous is None and lease.reason == Lease.Reason.RETURNED:
        raise Conflict(_("A reviewer has undone the return: your ranking counts as it was. Take the next one."))
    ranking = _write_ranking(lease, fields, idempotency_key, previous)
    if previous is None and lease.reason in (Lease.Reason.GOLD, Lease.Reason.QUALIFICATION):
        pauses.bet_on_gold(membership, ranking)
    if lease.reason == Lease.Reason.QUALIFICATION:
        # Only a first answer counts: by withdrawing and answering again one could find out which answer qualifies.
        if previous is None:
            gold.qualify_if_passed(membership)
    elif membership.project.extra_rankings:
        extra_rankings.request_if_no_majority(membership.project, lease.comparison_id)
    announce(membership.project, ranking)
    return ranking


def announce(project: Project, ranking: Ranking) -> None:
    """Tell the webhooks that a ranking was recorded, and that its comparison has all its rankings. Gold is left out."""
    if not project.webhook_events or ranking.reason in (Lease.Reason.GOLD, Lease.Reason.QUALIFICATION):
        return
    thing = f"comparison:{ranking.comparison_id}"
    data = {"project": project.slug, "comparison": ranking.comparison_id}
    webhooks.emit(project, "ranking.recorded", thing, {**data, "ranking": ranking.pk, "revision": ranking.revision})
    if "comparison.completed" in project.webhook_events and ranking.revision == 1:
        comparison = Comparison.objects.only("open_slots", "ranking_count").get(pk=ranking.comparison_id)
        held = Lease.objects.filter(comparison=comparison, lapsed_at__isnull=True)
        if not comparison.open_slots and not held.exists():
            webhooks.emit(project, "comparison.completed", thing, {**data, "rankings": comparison.ranking_count})


def _write_ranking(lease: Lease, fields: dict[str, Any], key: UUID, previous: Ranking | None) -> Ranking:
    """Replace the lease by the ranking, which is the next revision of `previous` if there is one."""
    values = {
        "lease": lease.pk,
        "project": lease.project_id,
        "comparison": lease.comparison_id,
        "annotator": lease.annotator_id,
        "size": lease.size,
        "display_order": lease.display_order,
        "key": key,
        "revision": previous.revision + 1 if previous else 1,
        "reason": str(previous.reason if previous else lease.reason),
        "now": timezone.now(),
    }
    as_json = {name: Jsonb(fields[name]) for name in ("ratings", "spans")}
    (row,) = statements.run(WRITE_RANKING, values | fields | as_json)
    return statements.build(Ranking, row)


@transaction.atomic(durable=True)
def revise_ranking(
    membership: Membership,
    ranking_id: int,
    ranks: Sequence[int],
    *,
    idempotency_key: UUID,
    seconds: float,
    **details: Unpack[RankingDetails],
) -> Ranking:
    """Store a new revision of the member's own ranking, which becomes the live one. The old row stays in the record.

    The arguments are those of `record_ranking`; `ranks` follow the order of display of the revised ranking. A ranking
    that the member withdrew is recorded again under the lease that holds its comparison.
    """
    locks.lock_member(membership)
    if duplicate := submitted_before(membership, idempotency_key):
        return duplicate
    if lease_id := _lease_of_withdrawn(membership, ranking_id):
        return _record(membership, lease_id, ranks, idempotency_key=idempotency_key, seconds=seconds, **details)
    old = _lock_ranking(membership, ranking_id)
    if not old.is_live:
        raise Conflict(
            _("This ranking was revised already, or a reviewer took it out: look at your latest ones instead.")
        )
    max_seconds = old.seconds + seconds_since(old.created_at)
    fields = ranking_fields(old, membership.project, ranks, seconds, details, max_seconds=max_seconds)
    Ranking.objects.filter(pk=old.pk).update(is_live=False)
    ranking = Ranking.objects.create(
        project_id=old.project_id,
        comparison_id=old.comparison_id,
        annotator_id=old.annotator_id,
        size=old.size,
        display_order=old.display_order,
        idempotency_key=idempotency_key,
        revision=old.revision + 1,
        reason=old.reason,
        standing=old.standing,
        review_id=old.review_id,
        **fields,
    )
    announce(membership.project, ranking)
    return ranking


def _lease_of_withdrawn(membership: Membership, ranking_id: int) -> UUID | None:
    # Not locked here: `_record` locks it, before the comparison.
    withdrawn = Lease.objects.filter(withdrawn=ranking_id, annotator_id=membership.user_id)
    return withdrawn.filter(project_id=membership.project_id).values_list("pk", flat=True).first()


@transaction.atomic(durable=True)
def skip_comparison(membership: Membership, lease_id: UUID, *, reason: str = "") -> Skip:
    """End a lease without a ranking. Its slot opens, and the comparison is not offered to this member again.

    If it is sent twice, the second call returns the first skip.
    """
    reason = validation.text(reason, _("The reason"), max_length=500)
    locks.lock_member(membership)
    if duplicate := Skip.objects.filter(lease_id=lease_id, annotator_id=membership.user_id).first():
        return duplicate
    lease = locks.lock_lease(membership, lease_id)
    locks.end_lease(lease, slot_is_used=False)
    return Skip.objects.create(
        comparison_id=lease.comparison_id,
        annotator_id=membership.user_id,
        lease_id=lease_id,
        reason=reason,
        stand_in_id=claim.first_in_queue(membership) if lease.reason == Lease.Reason.GOLD else None,
    )


def previous_ranking(lease: Lease) -> Ranking | None:
    """Return the annotator's ranking that they withdrew, or that a reviewer returned; None for a first answer."""
    if lease.withdrawn_id is not None:
        return lease.withdrawn
    if lease.reason != Lease.Reason.RETURNED:
        return None
    revisions = Ranking.objects.filter(comparison_id=lease.comparison_id, annotator_id=lease.annotator_id)
    last = revisions.select_related("review").order_by("-revision").first()
    return last if last is not None and last.standing == Ranking.Standing.RETURNED else None


def recent(membership: Membership, limit: int = 10) -> list[Ranking]:
    """Return the member's live rankings of given comparisons, newest first, with their comparison and prompt loaded."""
    live = Ranking.objects.filter(annotator_id=membership.user_id, project_id=membership.project_id, is_live=True)
    live = live.exclude(reason=Lease.Reason.DEMONSTRATION)
    return list(live.select_related("comparison__prompt").order_by("-created_at", "-id")[:limit])


def shown_ranks(ranking: Ranking) -> list[int]:
    """Return the ranks in the order of display, as the annotator gave them."""
    return [ranking.ranks[position] for position in ranking.display_order]


def submitted_before(membership: Membership, idempotency_key: UUID) -> Ranking | None:
    """Return the ranking that the member stored with this key. Raises Conflict if it is in another project."""
    (row,) = statements.run(SUBMITTED_BEFORE, [membership.user_id, idempotency_key]) or (None,)
    ranking = None if row is None else statements.build(Ranking, row)
    if ranking is not None and ranking.project_id != membership.project_id:
        raise Conflict(_("This idempotency key was used in another project: make a new one for each submit."))
    return ranking


def _lock_ranking(membership: Membership, ranking_id: int) -> Ranking:
    """Return the member's own ranking, its comparison locked: reviewers and annotators change rankings under it."""
    rows = Ranking.objects.filter(pk=ranking_id, annotator_id=membership.user_id, project_id=membership.project_id)
    ranking = rows.exclude(reason=Lease.Reason.DEMONSTRATION).first()
    if ranking is None:
        raise NotFound(_("You have no such ranking."))
    locks.lock_comparison(ranking.comparison_id)
    return rows.get()  # read again: it may have changed while this waited for the lock


def seconds_since(moment: datetime) -> float:
    """Return the longest time that a correct clock can have measured since then."""
    return max(0.0, (timezone.now() - moment).total_seconds()) + CLOCK_SLACK


def ranking_fields(
    displayed: Lease | Ranking,
    project: Project,
    ranks: Sequence[int],
    seconds: float,
    details: RankingDetails,
    *,
    max_seconds: float,
) -> dict[str, Any]:
    """Check a submitted ranking and return it as fields of a Ranking. Raises Invalid.

    `displayed` has the size and the order of display. More than `max_seconds` is stored as `max_seconds`: a label is
    not refused because of a wrong clock.
    """
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not math.isfinite(seconds) or seconds < 0:
        raise Invalid(_("The seconds taken must be a number of at least 0."))
    order = displayed.display_order
    return {
        "ranks": ranks_by_position(displayed.size, order, ranks),
        "seconds": min(float(seconds), max_seconds, MAX_SECONDS),
        **ranking_details.details_by_position(Comparison(pk=displayed.comparison_id), project, order, details),
    }


def ranks_by_position(size: int, display_order: Sequence[int], ranks: Sequence[int]) -> list[int]:
    """Return dense ranks by position, from ranks in the order of display. Raises Invalid."""
    if isinstance(ranks, str) or not isinstance(ranks, Sequence) or len(ranks) != size:
        raise Invalid(_("Give a rank to each of the %(size)s completions.") % {"size": size})
    if not all(ranking_details.is_whole(rank) and 1 <= rank <= 9 for rank in ranks):
        raise Invalid(_("A rank is a whole number from 1 (best) to 9; equal numbers tie."))
    by_position = [0] * size
    for position, rank in zip(display_order, dense(ranks), strict=True):
        by_position[position] = rank
    return by_position
