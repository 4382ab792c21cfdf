"""Every write of what an annotator says: record, revise, skip, undo, withdraw. What reviewers decide is in review.py.

Each is one durable transaction that begins with the annotator's membership locked, so that the same submit sent five
times at once is served one after the other: the first makes the ranking, the others are answered with it.
"""

import math
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any, Unpack
from uuid import UUID, uuid4

from django.db import transaction
from django.db.models import F
from django.utils import timezone
from django.utils.translation import gettext as _
from psycopg.types.json import Jsonb

from feedback import statements, validation
from feedback.actions import ranking_details
from feedback.actions.ranking_details import RankingDetails
from feedback.errors import Conflict, Invalid, NotFound
from feedback.imports.rows import dense
from feedback.models import Comparison, Lease, Membership, Project, Ranking, Skip
from feedback.queue import claim, extra_rankings, gold, leases

MAX_SECONDS = 24 * 3600.0
CLOCK_SLACK = 5.0  # seconds by which the clocks of web hosts and browsers may disagree
UNDO_REACHES = 10  # rankings in a row
UNDO_WITHIN = timedelta(days=1)  # a ranking is learned from sooner or later
RANKING = statements.columns(Ranking, "feedback_ranking")
SUBMITTED_BEFORE = f"SELECT {RANKING} FROM feedback_ranking WHERE annotator_id = %s AND idempotency_key = %s"
# The lease's slot is the ranking's from now on. All of Ranking's fields that a submit decides.
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
    """As `record`, with the next comparison held in the same transaction: the disk is waited for once, not twice.

    No lease says nothing of what is left: `queue.lease_next` finds out, and may wait, as this one must not.
    """
    ranking = _record(membership, lease_id, ranks, idempotency_key=idempotency_key, seconds=seconds, **details)
    return ranking, leases.lease_at_once(membership, beside)


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
    """Store what the member says of the comparison that they hold, and end the lease.

    `ranks` follow the order of display: `ranks[0]` is the rank of the completion shown first. 1 is best, equal
    numbers tie, and only their order counts: (2, 4, 4) is stored as (1, 2, 2). `seconds` is the time spent, as the
    page measured it; at most the lease's age is stored. What else is `said` must be what the project asks: see
    `remarks.RankingDetails`.

    The same `idempotency_key` again returns the first ranking, whatever else is sent. A lease that ran out is
    accepted as long as the comparison still wants a ranking; else Conflict, and nothing is stored.

    Of a comparison whose ranking a reviewer returned, or its annotator withdrew, this is the next revision.
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
    leases.lock_member(membership)
    if earlier := submitted_before(membership, idempotency_key):
        return earlier
    lease = leases.lock_lease(membership, lease_id)
    # A renewal keeps `taken_at`, so offline work and long reading stay within the lease's age.
    most_seconds = seconds_since(lease.taken_at) + (lease.withdrawn.seconds if lease.withdrawn else 0.0)
    fields = check_ranking(lease, membership.project, ranks, seconds, details, most_seconds=most_seconds)
    if lease.lapsed_at is not None and not leases.take_slot_again(lease):
        raise Conflict(
            _(
                "Your time for this comparison ran out, and others have ranked it in the meantime: it needs no more "
                "rankings. Take the next one."
            )
        )
    earlier = previous_ranking(lease)
    if earlier is None and lease.reason == Lease.Reason.RETURNED:
        raise Conflict(_("A reviewer has taken it back: your ranking counts as it was. Take the next one."))
    ranking = _write_ranking(lease, fields, idempotency_key, earlier)
    if lease.reason == Lease.Reason.QUALIFICATION:
        # Only a first answer: who withdraws and answers again and again would learn which answer qualifies.
        if earlier is None:
            gold.note(membership)
    elif membership.project.extra_opinions:
        extra_rankings.ask_for_majority(membership.project, lease.comparison_id)
    return ranking


def _write_ranking(lease: Lease, fields: dict[str, Any], key: UUID, earlier: Ranking | None) -> Ranking:
    """The row, in place of the lease; as the next revision of what was returned or withdrawn."""
    values = {
        "lease": lease.pk,
        "project": lease.project_id,
        "comparison": lease.comparison_id,
        "annotator": lease.annotator_id,
        "size": lease.size,
        "display_order": lease.display_order,
        "key": key,
        "revision": earlier.revision + 1 if earlier else 1,
        "reason": str(earlier.reason if earlier else lease.reason),
        "now": timezone.now(),
    }
    (row,) = statements.run(
        WRITE_RANKING, values | fields | {name: Jsonb(fields[name]) for name in ("ratings", "spans")}
    )
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
    """Correct one's own ranking: a new revision becomes the live one, and the old one stays in the record.

    The arguments are those of `record`; `ranks` follow the order of display of the ranking revised.
    """
    leases.lock_member(membership)
    if earlier := submitted_before(membership, idempotency_key):
        return earlier
    old = _own_ranking(membership, ranking_id)
    if not old.is_live:
        raise Conflict(
            _("This ranking was revised already, or a reviewer took it out: look at your latest ones instead.")
        )
    most_seconds = old.seconds + seconds_since(old.created_at)
    fields = check_ranking(old, membership.project, ranks, seconds, details, most_seconds=most_seconds)
    Ranking.objects.filter(pk=old.pk).update(is_live=False)
    return Ranking.objects.create(
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


def previous_ranking(lease: Lease) -> Ranking | None:
    """Return the annotator's own ranking that they withdrew, or that a reviewer returned; None for a first answer."""
    if lease.withdrawn_id is not None:
        return lease.withdrawn
    if lease.reason != Lease.Reason.RETURNED:
        return None
    own = Ranking.objects.filter(comparison_id=lease.comparison_id, annotator_id=lease.annotator_id)
    last = own.select_related("review").order_by("-revision").first()
    return last if last is not None and last.standing == Ranking.Standing.RETURNED else None


@transaction.atomic(durable=True)
def skip_comparison(membership: Membership, lease_id: UUID, *, reason: str = "") -> Skip:
    """Not rank this comparison: its slot goes to others, and this member is not offered it again.

    Sent twice, it is one skip.
    """
    reason = validation.text(reason, _("The reason"), longest=500)
    leases.lock_member(membership)
    if earlier := Skip.objects.filter(lease_id=lease_id, annotator_id=membership.user_id).first():
        return earlier
    lease = leases.lock_lease(membership, lease_id)
    leases.end_lease(lease, slot_is_used=False)
    return Skip.objects.create(
        comparison_id=lease.comparison_id,
        annotator_id=membership.user_id,
        lease_id=lease_id,
        reason=reason,
        stand_in_id=claim.first(membership) if lease.reason == Lease.Reason.GOLD else None,
    )


@transaction.atomic(durable=True)
def undo_last(membership: Membership) -> Ranking | Lease:
    """Reopen what this member did last in the project.

    A ranking comes back to be revised (it counts until then: see `revise`); a skip is taken back, and its
    comparison held anew, if it still wants a ranking.
    """
    leases.lock_member(membership)
    done = _last_done(membership)
    return _take_back(membership, done) if isinstance(done, Skip) else done


@transaction.atomic(durable=True)
def withdraw(membership: Membership) -> Lease:
    """Undo what this member did last in the project, and hold its comparison for them again.

    A ranking does not count any more: its last revision is `withdrawn`, and the lease shows what it said. Raises
    NotFound where nothing is left to undo: a ranking older than a day, or the eleventh in a row.
    """
    leases.lock_member(membership)
    done = _last_done(membership)
    return _take_back(membership, done) if isinstance(done, Skip) else _withdraw(membership, done)


def _last_done(membership: Membership) -> Ranking | Skip:
    ranking = next(iter(recent(membership, 1)), None)
    skips = Skip.objects.filter(annotator_id=membership.user_id, comparison__project_id=membership.project_id)
    skipped = skips.order_by("-created_at").first()
    if skipped is not None and (ranking is None or ranking.created_at < skipped.created_at):
        return skipped
    if ranking is None:
        raise NotFound(_("There is nothing to undo yet."))
    return ranking


def _withdraw(membership: Membership, ranking: Ranking) -> Lease:
    held = Lease.objects.filter(annotator_id=membership.user_id, project_id=membership.project_id)
    in_a_row = held.filter(withdrawn__isnull=False, lapsed_at__isnull=True).count()
    if ranking.created_at < timezone.now() - UNDO_WITHIN or in_a_row >= UNDO_REACHES:
        raise NotFound(
            _("Only your last %(most)s rankings of the past 24 hours can be undone.") % {"most": UNDO_REACHES}
        )
    comparison = leases.lock_comparison(ranking.comparison_id)
    ranking.refresh_from_db()
    if not ranking.is_live or ranking.standing != Ranking.Standing.COUNTS or comparison.adjudicated_at is not None:
        raise Conflict(_("A reviewer has decided on this ranking meanwhile: it cannot be undone any more."))
    Ranking.objects.filter(pk=ranking.pk).update(is_live=False)
    ranking.pk, ranking.revision, ranking.idempotency_key = None, ranking.revision + 1, uuid4()
    ranking.standing, ranking.is_live, ranking.review, ranking.sequence = Ranking.Standing.WITHDRAWN, False, None, None
    ranking.save(force_insert=True)
    Comparison.objects.filter(pk=comparison.pk).update(ranking_count=F("ranking_count") - 1)
    return leases.hold_withdrawn(membership, ranking)


def recent(membership: Membership, limit: int = 10) -> list[Ranking]:
    """The member's own live rankings in the project, newest first, with their comparison and prompt loaded."""
    own = Ranking.objects.filter(annotator_id=membership.user_id, project_id=membership.project_id, is_live=True)
    return list(own.select_related("comparison__prompt").order_by("-created_at", "-id")[:limit])


def shown_ranks(ranking: Ranking) -> list[int]:
    """The ranks in the order of display, as the annotator gave them."""
    return [ranking.ranks[position] for position in ranking.display_order]


def _take_back(membership: Membership, skipped: Skip) -> Lease:
    is_gone = gold.is_gone(skipped)
    skipped.delete()
    lease = None if is_gone else leases.hold(membership, skipped.comparison_id)
    if lease is None:
        raise Conflict(_("Others have ranked the comparison that you skipped: it needs no more rankings."))
    return lease


def submitted_before(membership: Membership, idempotency_key: UUID) -> Ranking | None:
    (row,) = statements.run(SUBMITTED_BEFORE, [membership.user_id, idempotency_key]) or (None,)
    found = None if row is None else statements.build(Ranking, row)
    if found is not None and found.project_id != membership.project_id:
        raise Conflict(_("This idempotency key was used in another project: make a new one for each submit."))
    return found


def _own_ranking(membership: Membership, ranking_id: int) -> Ranking:
    """As it is now: a reviewer changes a ranking with its comparison locked, and so does its annotator."""
    own = Ranking.objects.filter(pk=ranking_id, annotator_id=membership.user_id, project_id=membership.project_id)
    found = own.first()
    if found is None:
        raise NotFound(_("There is no such ranking of yours."))
    leases.lock_comparison(found.comparison_id)
    return own.get()


def seconds_since(moment: datetime) -> float:
    """Return the most that an honest clock can have measured since then."""
    return max(0.0, (timezone.now() - moment).total_seconds()) + CLOCK_SLACK


def check_ranking(
    shown: Lease | Ranking,
    project: Project,
    ranks: Sequence[int],
    seconds: float,
    details: RankingDetails,
    *,
    most_seconds: float,
) -> dict[str, Any]:
    """Return the fields of a Ranking of what was shown; raise Invalid with a sentence.

    More than `most_seconds` are stored as these: a label is not refused for a wrong clock.
    """
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not math.isfinite(seconds) or seconds < 0:
        raise Invalid(_("The seconds taken must be a number of at least 0."))
    return {
        "ranks": ranks_by_position(shown.size, shown.display_order, ranks),
        "seconds": min(float(seconds), most_seconds, MAX_SECONDS),
        **ranking_details.details_by_position(
            Comparison(pk=shown.comparison_id), project, shown.display_order, details
        ),
    }


def ranks_by_position(size: int, display_order: Sequence[int], ranks: Sequence[int]) -> list[int]:
    """Dense ranks by position, of ranks given in the order of display."""
    if isinstance(ranks, str) or not isinstance(ranks, Sequence) or len(ranks) != size:
        raise Invalid(_("Give a rank to each of the %(size)s completions.") % {"size": size})
    if not all(ranking_details.is_whole(rank) and 1 <= rank <= 9 for rank in ranks):
        raise Invalid(_("A rank is a whole number from 1 (best) to 9; equal numbers tie."))
    by_position = [0] * size
    for position, rank in zip(display_order, dense(ranks), strict=True):
        by_position[position] = rank
    return by_position
