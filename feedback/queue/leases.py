"""Leases: give comparisons to annotators, renew, release and reclaim them.

Comparisons are claimed with `SKIP LOCKED`. `locks` describes the order of locks. A ranking that a reviewer returns is
leased to its annotator at once (`lease_rows.hold_returned`), and is served first.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID, uuid4

from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone
from django.utils.translation import gettext as _

from feedback import statements
from feedback.archive import Archived
from feedback.errors import Conflict
from feedback.models import Comparison, Lease, Membership, Project
from feedback.queue import blinding, claim, gold, lease_rows, limits, locks

DEFAULT_MAX_LEASES = 5  # of one annotator in one project, where `max_leases` does not allow more
RECLAIM_BATCH = 50
LAPSED_LEASES_KEPT = timedelta(days=7)  # for late submits

OVERDUE = """EXISTS (
    SELECT FROM feedback_lease WHERE project_id = %(project)s AND lapsed_at IS NULL AND expires_at <= %(now)s)"""
HELD = f"""
    SELECT {locks.LEASE} FROM feedback_lease
    WHERE annotator_id = %s AND project_id = %s AND lapsed_at IS NULL AND expires_at > %s
    ORDER BY taken_at FOR NO KEY UPDATE"""
CAPACITY = f"""
    SELECT {OVERDUE}, ARRAY(
        SELECT id FROM feedback_lease
        WHERE annotator_id = %(person)s AND project_id = %(project)s AND lapsed_at IS NULL AND expires_at > %(now)s)"""


def lease_next(membership: Membership, *, beside: Collection[UUID] = ()) -> Lease | None:
    """Lease the next comparison to this member. Returns None if nothing is left for them.

    The oldest lease that they hold already is returned first, renewed, so that a reload shows the same comparison.
    `beside` has the ids of leases that the page shows or has fetched: they are not returned again, and one more lease
    is created, up to `max_leases`. A member who is paused gets nothing; what they hold they may still submit. Raises
    Conflict if the member holds too many, Archived if the project is archived.

    The lease's `comparison.prompt` is loaded; `lease.comparison.texts(lease.display_order)` is what the member sees.
    """
    # In a transaction of its own: the claim below may wait for a lock, and must not hold these locks meanwhile.
    if _is_any_overdue(membership.project_id):
        reclaim(membership.project_id)
    return _lease_next(membership, beside)


def lease_next_after_write(membership: Membership, *, beside: Collection[UUID] = ()) -> Lease | None:
    """Do as `lease_next`, but return None where it raises Conflict or Archived.

    For a request that has stored something already: an error would mean to the client that nothing was stored.
    """
    try:
        return lease_next(membership, beside=beside)
    except (Archived, Conflict):
        return None


@transaction.atomic
def _lease_next(membership: Membership, beside: Collection[UUID]) -> Lease | None:
    locks.lock_member(membership)
    if membership.paused_at is not None:
        return None
    now = timezone.now()
    held = _held(membership, now)
    if waiting := next((lease for lease in held if lease.pk not in beside), None):
        waiting.comparison = Comparison.objects.select_related("prompt").get(pk=waiting.comparison_id)
        return lease_rows.extend(waiting, membership, now)
    if membership.project.archived_at is not None:
        raise Archived(_("This project is archived: nothing more can be ranked in it."))
    if sum(lease.reason != Lease.Reason.RETURNED for lease in held) >= max_leases(membership.project):
        raise Conflict(
            _("You hold %(most)s comparisons already: rank or give back one of them first.")
            % {"most": max_leases(membership.project)}
        )
    if limits.reached(membership):
        return None
    chosen = _choose(membership)
    return None if chosen is None else _write_chosen(membership, chosen, now)


def lease_without_waiting(membership: Membership, beside: Collection[UUID]) -> Lease | None:
    """Lease the next comparison inside a transaction that has already written and so must not wait for a lock.

    Return None if it would have to wait, or the member must qualify, holds other leases or too many, or leases of the
    project are overdue. The caller then uses `lease_next`. The caller has locked the membership.
    """
    now = timezone.now()
    if membership.project.archived_at is not None or membership.paused_at is not None or gold.must_qualify(membership):
        return None
    values = {"project": membership.project_id, "person": membership.user_id, "now": now}
    ((is_any_overdue, held),) = statements.run(CAPACITY, values)
    if is_any_overdue or set(held) - set(beside) or len(held) >= max_leases(membership.project):
        return None
    if limits.reached(membership):
        return None
    chosen = _choose(membership, may_wait=False)
    return None if chosen is None else _write_chosen(membership, chosen, now)


def max_leases(project: Project) -> int:
    """Return how many leases one annotator may hold: on screen, set aside by an undo, and fetched ahead."""
    return max(DEFAULT_MAX_LEASES, project.comparisons_ahead + 2)


@dataclass(frozen=True)
class _Chosen:
    """A locked comparison, with one of its slots taken."""

    comparison: Comparison
    reason: str
    stand_in: int | None = None  # for gold: id of the real work that it comes before


def _choose(membership: Membership, *, may_wait: bool = True) -> _Chosen | None:
    """Choose the next comparison with the reason: qualification, gold, missing majority, started or sampled.

    Real work is claimed first, and put back if gold comes before it. So gold ends when the real work ends.
    """
    if gold.must_qualify(membership):
        return _Chosen(locks.take_locked_slot(gold.claim_to_qualify(membership)), Lease.Reason.QUALIFICATION)
    comparison = claim.claim(membership, may_wait=may_wait)
    if comparison is None:
        return None
    if gold_comparison := gold.claim_before(membership, comparison.pk):
        locks.open_slot(comparison.pk)
        return _Chosen(locks.take_locked_slot(gold_comparison), Lease.Reason.GOLD, comparison.pk)
    return _Chosen(comparison, lease_rows.reason_of(comparison))


@transaction.atomic
def renew(membership: Membership, lease_id: UUID) -> Lease:
    """Extend the lease to the project's lease time from now. Raises Conflict if it lapsed and no slot is open."""
    locks.lock_member(membership)
    lease = locks.lock_lease(membership, lease_id)
    now = timezone.now()
    if lease.lapsed_at is not None and not locks.take_slot_again(membership, lease):
        raise Conflict(_("Your time for this comparison ran out and others have ranked it since: take the next one."))
    return lease_rows.extend(lease, membership, now)


@transaction.atomic
def release(membership: Membership, lease_id: UUID) -> None:
    """End the lease without a ranking. The comparison may be offered to the same annotator again."""
    locks.lock_member(membership)
    lease = locks.lock_lease(membership, lease_id)
    if lease.reason == Lease.Reason.GOLD:
        _release_gold(membership, lease)
    else:
        locks.end_lease(lease, slot_is_used=False)


def _release_gold(membership: Membership, lease: Lease) -> None:
    """Lapse a lease of gold instead of deleting it, so that the same gold comes again, as real work would.

    It gets another id, because a released lease of real work cannot be found by its id either.
    """
    if lease.lapsed_at is None:
        locks.open_slot(lease.comparison_id)
    lapsed = {"id": uuid4(), "lapsed_at": timezone.now(), "stand_in_id": claim.first_in_queue(membership)}
    Lease.objects.filter(pk=lease.pk).update(**lapsed)


@transaction.atomic
def reclaim(project_id: int, now: datetime | None = None) -> int:
    """Lapse up to RECLAIM_BATCH expired leases of a project and open their slots. Returns how many.

    Called before a claim, so that nothing depends on a timer. Locked leases are skipped: somebody is submitting or
    renewing them.
    """
    now = now or timezone.now()
    overdue = list(
        _overdue(project_id, now)
        .select_for_update(skip_locked=True, of=("self", "comparison"))
        .select_related("comparison", "project")
        .order_by("expires_at")[:RECLAIM_BATCH]
    )
    for lease in overdue:  # one by one, because several may be of the same comparison
        locks.open_slot(lease.comparison_id)
    if overdue:
        Lease.objects.filter(pk__in=[lease.pk for lease in overdue]).update(lapsed_at=now)
    for lease in overdue:
        if lease.reason == Lease.Reason.GOLD:
            member = Membership.objects.filter(project=lease.project, user=lease.annotator_id).first()
            member = member or Membership(project=lease.project, user_id=lease.annotator_id)
            member.project = lease.project
            Lease.objects.filter(pk=lease.pk).update(stand_in_id=claim.first_in_queue(member))
    return len(overdue)


def _is_any_overdue(project_id: int) -> bool:
    ((is_any_overdue,),) = statements.run(f"SELECT {OVERDUE}", {"project": project_id, "now": timezone.now()})
    return is_any_overdue


def _overdue(project_id: int, now: datetime) -> QuerySet[Lease]:
    return Lease.objects.filter(project_id=project_id, lapsed_at__isnull=True, expires_at__lte=now)


def sweep(now: datetime | None = None) -> int:
    """Reclaim in every project and delete leases that lapsed long ago. Returns how many lapsed. Called by a timer."""
    now = now or timezone.now()
    overdue = Lease.objects.filter(lapsed_at__isnull=True, expires_at__lte=now)
    count = 0
    for project_id in overdue.values_list("project_id", flat=True).distinct():
        while reclaimed := reclaim(project_id, now):
            count += reclaimed
    outdated = Lease.objects.filter(lapsed_at__lte=now - LAPSED_LEASES_KEPT)
    # SKIP LOCKED: two sweeps at once lock rows in any order, and would be a deadlock if they waited.
    Lease.objects.filter(pk__in=outdated.select_for_update(skip_locked=True).values("pk")).delete()
    return count


def _held(membership: Membership, now: datetime) -> list[Lease]:
    # Locked, so that none of them lapses before it is renewed.
    rows = statements.run(HELD, [membership.user_id, membership.project_id, now])
    held = [statements.build(Lease, row) for row in rows]
    return sorted(held, key=lambda lease: (lease.reason != Lease.Reason.RETURNED, lease.withdrawn_id is None))


def _write_chosen(membership: Membership, chosen: _Chosen, now: datetime) -> Lease:
    comparison = chosen.comparison
    order = blinding.display_order(membership.project, comparison.pk, membership.user_id, comparison.size)
    return lease_rows.write_lease(
        membership, comparison, chosen.reason, now, display_order=order, stand_in=chosen.stand_in
    )
