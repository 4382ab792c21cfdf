"""Leases: give comparisons to annotators, renew, release and reclaim them.

Every action of an annotator first locks their membership. So two requests of one annotator run one after the other, and
requests of different annotators never wait for each other. Comparisons are claimed with `SKIP LOCKED`. The lock order
is membership, lease, comparison; a transaction that has locked a comparison waits for no further lock. A ranking that a
reviewer returns is leased to its annotator at once, and is served first.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID, uuid4

from django.db import transaction
from django.db.models import F, QuerySet
from django.utils import timezone
from django.utils.translation import gettext as _

from feedback import statements
from feedback.archive import Archived
from feedback.errors import Conflict, NotFound
from feedback.models import Comparison, Lease, Membership, Project, Ranking
from feedback.queue import blinding, claim, gold

DEFAULT_MAX_LEASES = 5  # of one annotator in one project, where `max_leases` does not allow more
RECLAIM_BATCH = 50
LAPSED_LEASES_KEPT = timedelta(days=7)  # for late submits
RETURNED_HELD = timedelta(days=7)  # then another annotator ranks in place of one who does not answer

MEMBER = f"""
    SELECT {statements.columns(Project, "project")}, membership.role, membership.qualified_at,
        membership.gold_given_before, membership.gold_given
    FROM feedback_membership AS membership JOIN feedback_project AS project ON project.id = membership.project_id
    WHERE membership.id = %s
    FOR NO KEY UPDATE OF membership"""
OVERDUE = """EXISTS (
    SELECT FROM feedback_lease WHERE project_id = %(project)s AND lapsed_at IS NULL AND expires_at <= %(now)s)"""
LEASE = statements.columns(Lease, "feedback_lease")
OWN_LEASE = f"SELECT {LEASE} FROM feedback_lease WHERE id = %s AND annotator_id = %s AND project_id = %s FOR UPDATE"
HELD = f"""
    SELECT {LEASE} FROM feedback_lease
    WHERE annotator_id = %s AND project_id = %s AND lapsed_at IS NULL AND expires_at > %s
    ORDER BY taken_at FOR NO KEY UPDATE"""
CAPACITY = f"""
    SELECT {OVERDUE}, ARRAY(
        SELECT id FROM feedback_lease
        WHERE annotator_id = %(person)s AND project_id = %(project)s AND lapsed_at IS NULL AND expires_at > %(now)s)"""
# The upsert renews a lapsed lease of the same annotator.
WRITE_LEASE = f"""
    INSERT INTO feedback_lease (id, project_id, comparison_id, annotator_id, size, display_order, reason, taken_at,
        expires_at, stand_in_id, withdrawn_id)
    VALUES (%(id)s, %(project)s, %(comparison)s, %(annotator)s, %(size)s, %(display_order)s, %(reason)s, %(now)s,
        %(until)s, %(stand_in)s, %(withdrawn)s)
    ON CONFLICT (comparison_id, annotator_id) DO UPDATE SET reason = EXCLUDED.reason, taken_at = EXCLUDED.taken_at,
        expires_at = EXCLUDED.expires_at, lapsed_at = NULL, stand_in_id = EXCLUDED.stand_in_id,
        withdrawn_id = EXCLUDED.withdrawn_id
    RETURNING {LEASE}"""


def lease_next(membership: Membership, *, beside: Collection[UUID] = ()) -> Lease | None:
    """Lease the next comparison to this member. Returns None if nothing is left for them.

    The oldest lease that they hold already is returned first, renewed, so that a reload shows the same comparison.
    `beside` has the ids of leases that the page shows or has fetched: they are not returned again, and one more lease
    is created, up to `max_leases`. Raises Conflict if the member holds too many, Archived if the project is archived.

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
    lock_member(membership)
    now = timezone.now()
    held = _held(membership, now)
    if waiting := next((lease for lease in held if lease.pk not in beside), None):
        waiting.comparison = Comparison.objects.select_related("prompt").get(pk=waiting.comparison_id)
        return _extend(waiting, membership, now)
    if membership.project.archived_at is not None:
        raise Archived(_("This project is archived: nothing more can be ranked in it."))
    if sum(lease.reason != Lease.Reason.RETURNED for lease in held) >= max_leases(membership.project):
        raise Conflict(
            _("You hold %(most)s comparisons already: rank or give back one of them first.")
            % {"most": max_leases(membership.project)}
        )
    chosen = _choose(membership)
    return None if chosen is None else _write_chosen(membership, chosen, now)


def lease_without_waiting(membership: Membership, beside: Collection[UUID]) -> Lease | None:
    """Lease the next comparison inside a transaction that has already written and so must not wait for a lock.

    Return None if it would have to wait, or the member must qualify, holds other leases or too many, or leases of the
    project are overdue. The caller then uses `lease_next`. The caller has locked the membership.
    """
    now = timezone.now()
    if membership.project.archived_at is not None or gold.must_qualify(membership):
        return None
    values = {"project": membership.project_id, "person": membership.user_id, "now": now}
    ((is_any_overdue, held),) = statements.run(CAPACITY, values)
    if is_any_overdue or set(held) - set(beside) or len(held) >= max_leases(membership.project):
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
        return _Chosen(_with_slot(gold.claim_to_qualify(membership)), Lease.Reason.QUALIFICATION)
    comparison = claim.claim(membership, may_wait=may_wait)
    if comparison is None:
        return None
    if gold_comparison := gold.claim_before(membership, comparison.pk):
        _open_slot(comparison.pk)
        return _Chosen(_with_slot(gold_comparison), Lease.Reason.GOLD, comparison.pk)
    return _Chosen(comparison, _reason_of(comparison))


def _reason_of(comparison: Comparison) -> str:
    """Return why the comparison was chosen. The order of the queue puts those with most rankings first."""
    if comparison.gold_ranks is not None:  # its skip was undone
        return Lease.Reason.GOLD
    if comparison.extra_rankings:
        return Lease.Reason.DISAGREEMENT
    return Lease.Reason.STARTED if comparison.ranking_count else Lease.Reason.SAMPLED


@transaction.atomic
def renew(membership: Membership, lease_id: UUID) -> Lease:
    """Extend the lease to the project's lease time from now. Raises Conflict if it lapsed and no slot is open."""
    lock_member(membership)
    lease = lock_lease(membership, lease_id)
    now = timezone.now()
    if lease.lapsed_at is not None and not take_slot_again(lease):
        raise Conflict(_("Your time for this comparison ran out and others have ranked it since: take the next one."))
    return _extend(lease, membership, now)


@transaction.atomic
def release(membership: Membership, lease_id: UUID) -> None:
    """End the lease without a ranking. The comparison may be offered to the same annotator again."""
    lock_member(membership)
    lease = lock_lease(membership, lease_id)
    if lease.reason == Lease.Reason.GOLD:
        _release_gold(membership, lease)
    else:
        end_lease(lease, slot_is_used=False)


def _release_gold(membership: Membership, lease: Lease) -> None:
    """Lapse a lease of gold instead of deleting it, so that the same gold comes again, as real work would.

    It gets another id, because a released lease of real work cannot be found by its id either.
    """
    if lease.lapsed_at is None:
        _open_slot(lease.comparison_id)
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
        .select_related("comparison")
        .order_by("expires_at")[:RECLAIM_BATCH]
    )
    for lease in overdue:  # one by one, because several may be of the same comparison
        _open_slot(lease.comparison_id)
    if overdue:
        Lease.objects.filter(pk__in=[lease.pk for lease in overdue]).update(lapsed_at=now)
    for lease in overdue:
        if lease.reason == Lease.Reason.GOLD:
            member = Membership(project_id=project_id, user_id=lease.annotator_id)
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


def display_order(membership: Membership, comparison: Comparison) -> list[int]:
    """Return the order in which this member sees a comparison; the same as before if they ranked or held it."""
    seen = {"comparison": comparison.pk, "annotator": membership.user_id}
    ranked = Ranking.objects.filter(**seen).order_by("-revision").values_list("display_order", flat=True).first()
    held = ranked or Lease.objects.filter(**seen).values_list("display_order", flat=True).first()
    return held or blinding.display_order(membership.project, comparison.pk, membership.user_id, comparison.size)


def hold(membership: Membership, comparison_id: int) -> Lease | None:
    """Lease this comparison to the member if it has an open slot. The caller has locked the membership."""
    revisions = Ranking.objects.filter(comparison=comparison_id, annotator=membership.user_id)
    last = revisions.order_by("-revision").first()
    if (last is not None and last.is_live) or not take_slot(comparison_id):
        return None
    if last is not None and last.standing == Ranking.Standing.WITHDRAWN:
        return hold_withdrawn(membership, last)
    comparison = Comparison.objects.select_related("prompt").get(pk=comparison_id)
    reason = Lease.Reason.RETURNED if last is not None else _reason_of(comparison)
    if reason == Lease.Reason.GOLD and gold.must_qualify(membership):
        reason = Lease.Reason.QUALIFICATION
    order = display_order(membership, comparison)
    return _write_lease(membership, comparison, reason, timezone.now(), display_order=order)


def hold_withdrawn(membership: Membership, ranking: Ranking) -> Lease:
    """Lease the comparison of a ranking that this member withdrew. The ranking's slot becomes the lease's."""
    comparison = Comparison.objects.select_related("prompt").get(pk=ranking.comparison_id)
    now, order = timezone.now(), ranking.display_order
    lease = _write_lease(membership, comparison, ranking.reason, now, display_order=order, withdrawn=ranking.pk)
    lease.withdrawn = ranking
    return lease


def hold_returned(ranking: Ranking) -> None:
    """Lease the comparison of a returned ranking to its annotator. The ranking's slot becomes the lease's."""
    now = timezone.now()
    fields = {"reason": Lease.Reason.RETURNED, "taken_at": now, "expires_at": now + RETURNED_HELD, "lapsed_at": None}
    Lease.objects.update_or_create(
        comparison_id=ranking.comparison_id,
        annotator_id=ranking.annotator_id,
        defaults=fields,
        create_defaults=fields
        | {"project_id": ranking.project_id, "size": ranking.size, "display_order": ranking.display_order},
    )


def lock_member(membership: Membership) -> None:
    """Lock the membership: the first lock of every write by an annotator. The project's settings are read again."""
    # NO KEY: a plain FOR UPDATE would block other transactions that write rows with a foreign key to the membership.
    (row,) = statements.run(MEMBER, [membership.pk]) or (None,)
    if row is None:
        raise NotFound(_("You are not a member of this project any more."))
    *settings, membership.role, membership.qualified_at, gold_given_before, gold_given = row
    membership.gold_given_before, membership.gold_given = gold_given_before, gold_given
    membership.project = statements.build(Project, settings)


def lock_lease(membership: Membership, lease_id: UUID) -> Lease:
    """Lock the member's own lease, lapsed or not. Raises NotFound."""
    (row,) = statements.run(OWN_LEASE, [lease_id, membership.user_id, membership.project_id]) or (None,)
    if row is None:
        raise NotFound(_("You do not hold this comparison."))
    return statements.build(Lease, row)


def lock_comparison(comparison_id: int) -> Comparison:
    return Comparison.objects.select_for_update(no_key=True).get(pk=comparison_id)


def take_slot(comparison_id: int) -> bool:
    """Take an open slot of the comparison. Returns whether there was one. Waits if the row is locked."""
    with_open_slot = Comparison.objects.filter(pk=comparison_id, open_slots__gt=0)
    return with_open_slot.update(open_slots=F("open_slots") - 1) == 1


def take_slot_again(lease: Lease) -> bool:
    """Take a slot for a lapsed lease again. Returns whether there was one."""
    return not gold.is_stand_in_taken(lease) and take_slot(lease.comparison_id)


def end_lease(lease: Lease, *, slot_is_used: bool) -> None:
    """Delete a locked lease. Its slot opens, unless a ranking uses it or it opened when the lease lapsed."""
    lease.delete()
    if not slot_is_used and lease.lapsed_at is None:
        _open_slot(lease.comparison_id)


def _held(membership: Membership, now: datetime) -> list[Lease]:
    # Locked, so that none of them lapses before it is renewed.
    rows = statements.run(HELD, [membership.user_id, membership.project_id, now])
    held = [statements.build(Lease, row) for row in rows]
    return sorted(held, key=lambda lease: (lease.reason != Lease.Reason.RETURNED, lease.withdrawn_id is None))


def _with_slot(comparison: Comparison) -> Comparison:
    """Take a slot of a comparison that is locked with a slot open."""
    Comparison.objects.filter(pk=comparison.pk).update(open_slots=F("open_slots") - 1)
    return comparison


def _open_slot(comparison_id: int) -> None:
    Comparison.objects.filter(pk=comparison_id).update(open_slots=F("open_slots") + 1)


def _write_chosen(membership: Membership, chosen: _Chosen, now: datetime) -> Lease:
    comparison = chosen.comparison
    order = blinding.display_order(membership.project, comparison.pk, membership.user_id, comparison.size)
    return _write_lease(membership, comparison, chosen.reason, now, display_order=order, stand_in=chosen.stand_in)


def _write_lease(
    membership: Membership,
    comparison: Comparison,
    reason: str,
    now: datetime,
    *,
    display_order: list[int],
    stand_in: int | None = None,
    withdrawn: int | None = None,
) -> Lease:
    """Write the lease of a slot that has just been taken."""
    values = {
        "id": uuid4(),
        "project": membership.project_id,
        "comparison": comparison.pk,
        "annotator": membership.user_id,
        "size": comparison.size,
        "display_order": display_order,
        "reason": str(reason),
        "stand_in": stand_in,
        "withdrawn": withdrawn,
        "now": now,
        "until": now + _lease_time(membership),
    }
    (row,) = statements.run(WRITE_LEASE, values)
    lease = statements.build(Lease, row)
    lease.comparison = comparison
    return lease


def _extend(lease: Lease, membership: Membership, now: datetime) -> Lease:
    lease.expires_at, lease.lapsed_at = max(lease.expires_at, now + _lease_time(membership)), None
    lease.save(update_fields=["expires_at", "lapsed_at"])
    return lease


def _lease_time(membership: Membership) -> timedelta:
    return timedelta(minutes=membership.project.lease_minutes)
