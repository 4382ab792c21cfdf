"""Which comparison comes next, for whom, and who holds what.

Everything an annotator does goes through their membership row, locked first: two requests of one person are served
one after the other, and those of different people never wait for each other. Comparisons are claimed with
`SKIP LOCKED`. The order of locks is membership, lease, comparison; after the comparison nothing is waited for. What a
reviewer returns is held for its annotator from then on, and comes first.
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

DEFAULT_MAX_LEASES = 5  # that one annotator holds in one project, where `most_leases` does not allow more
RECLAIMED_AT_ONCE = 50
LAPSED_LEASES_KEPT = timedelta(days=7)  # for late submits
RETURNED_HELD = timedelta(days=7)  # before somebody else is asked in place of one who does not answer

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
ROOM = f"""
    SELECT {OVERDUE}, ARRAY(
        SELECT id FROM feedback_lease
        WHERE annotator_id = %(person)s AND project_id = %(project)s AND lapsed_at IS NULL AND expires_at > %(now)s)"""
# A lapsed lease of the same person starts anew.
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
    """The comparison that this member should rank now, held for them; None when nothing is left for them.

    A lease that they hold already comes back first, the oldest one, renewed: so a reload shows the same comparison.
    `beside` names the leases that the page has on hand: another one is given, up to `most_leases` a person.

    The lease's `comparison.prompt` is loaded; `lease.comparison.texts(lease.display_order)` is what they see.
    """
    # In a transaction of its own: a claim may wait for a lock, and must not hold others meanwhile.
    if _is_any_overdue(membership.project_id):
        reclaim(membership.project_id)
    return _lease_next(membership, beside)


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
    if sum(lease.reason != Lease.Reason.RETURNED for lease in held) >= most_leases(membership.project):
        raise Conflict(
            _("You hold %(most_leases)s comparisons already: rank or give back one of them first.")
            % {"most_leases": most_leases(membership.project)}
        )
    chosen = _choose(membership)
    return None if chosen is None else _write_chosen(membership, chosen, now)


def lease_at_once(membership: Membership, beside: Collection[UUID]) -> Lease | None:
    """The next comparison, held, inside of a transaction that has written already, and so must wait for nobody.

    None where anything is out of the ordinary, or others are busy with what comes first: `lease_next` sees to it.
    The membership is locked by the caller.
    """
    now = timezone.now()
    if membership.project.archived_at is not None or gold.must_qualify(membership):
        return None
    asked = {"project": membership.project_id, "person": membership.user_id, "now": now}
    ((is_any_overdue, held),) = statements.run(ROOM, asked)
    if is_any_overdue or set(held) - set(beside) or len(held) >= most_leases(membership.project):
        return None
    chosen = _choose(membership, may_wait=False)
    return None if chosen is None else _write_chosen(membership, chosen, now)


def most_leases(project: Project) -> int:
    """Return how many leases one annotator may hold: on screen, set aside while an earlier one is open, and ahead."""
    return max(DEFAULT_MAX_LEASES, project.comparisons_ahead + 2)


@dataclass(frozen=True)
class _Chosen:
    """A locked comparison, one of its slots taken."""

    comparison: Comparison
    reason: str
    stand_in: int | None = None  # of gold: the real work that it comes before


def _choose(membership: Membership, *, may_wait: bool = True) -> _Chosen | None:
    """The pipeline, each step with its reason: qualification, gold, missing majorities, started, sampled.

    Gold comes only in place of real work that is there, which is claimed first and put back: so there is none of it
    once the real work is used up.
    """
    if gold.must_qualify(membership):
        return _Chosen(_with_slot(gold.claim_to_qualify(membership)), Lease.Reason.QUALIFICATION)
    comparison = claim.claim(membership, may_wait=may_wait)
    if comparison is None:
        return None
    if tested := gold.claim_before(membership, comparison.pk):
        _open_slot(comparison.pk)
        return _Chosen(_with_slot(tested), Lease.Reason.GOLD, comparison.pk)
    return _Chosen(comparison, _reason_of(comparison))


def _reason_of(comparison: Comparison) -> str:
    """Of the ordinary queue, whose order puts those with most rankings first; or of gold that was skipped."""
    if comparison.gold_ranks is not None:
        return Lease.Reason.GOLD
    if comparison.extra_opinions:
        return Lease.Reason.DISAGREEMENT
    return Lease.Reason.STARTED if comparison.ranking_count else Lease.Reason.SAMPLED


@transaction.atomic
def renew(membership: Membership, lease_id: UUID) -> Lease:
    """Hold the lease for the project's lease time from now on; takes it back if it lapsed and a slot is open."""
    lock_member(membership)
    lease = lock_lease(membership, lease_id)
    now = timezone.now()
    if lease.lapsed_at is not None and not take_slot_again(lease):
        raise Conflict(_("Your time for this comparison ran out and others have ranked it since: take the next one."))
    return _extend(lease, membership, now)


@transaction.atomic
def release(membership: Membership, lease_id: UUID) -> None:
    """Give the comparison back unranked. It may be offered to the same person again."""
    lock_member(membership)
    lease = lock_lease(membership, lease_id)
    if lease.reason == Lease.Reason.GOLD:
        _release_gold(membership, lease)
    else:
        end_lease(lease, slot_is_used=False)


def _release_gold(membership: Membership, lease: Lease) -> None:
    """Let it lapse rather than delete it, so that the same one comes again, as real work would.

    Under another id: of real work that was given back the lease is gone, too.
    """
    if lease.lapsed_at is None:
        _open_slot(lease.comparison_id)
    lapsed = {"id": uuid4(), "lapsed_at": timezone.now(), "stand_in_id": claim.first(membership)}
    Lease.objects.filter(pk=lease.pk).update(**lapsed)


@transaction.atomic
def reclaim(project_id: int, now: datetime | None = None) -> int:
    """Open the slots of a project's leases that ran out, up to 50; returns how many.

    Called inline before a claim, so that nothing depends on a timer. Waits for no lock: who holds one is at work on
    that very lease.
    """
    now = now or timezone.now()
    overdue = list(
        _overdue(project_id, now)
        .select_for_update(skip_locked=True, of=("self", "comparison"))
        .select_related("comparison")
        .order_by("expires_at")[:RECLAIMED_AT_ONCE]
    )
    for lease in overdue:  # one at a time: several may be of the same comparison
        _open_slot(lease.comparison_id)
    if overdue:
        Lease.objects.filter(pk__in=[lease.pk for lease in overdue]).update(lapsed_at=now)
    for lease in overdue:
        if lease.reason == Lease.Reason.GOLD:
            member = Membership(project_id=project_id, user_id=lease.annotator_id)
            Lease.objects.filter(pk=lease.pk).update(stand_in_id=claim.first(member))
    return len(overdue)


def _is_any_overdue(project_id: int) -> bool:
    ((found,),) = statements.run(f"SELECT {OVERDUE}", {"project": project_id, "now": timezone.now()})
    return found


def _overdue(project_id: int, now: datetime) -> QuerySet[Lease]:
    return Lease.objects.filter(project_id=project_id, lapsed_at__isnull=True, expires_at__lte=now)


def sweep(now: datetime | None = None) -> int:
    """Reclaim in every project, and forget leases that lapsed long ago. For a timer; returns how many ran out."""
    now = now or timezone.now()
    overdue = Lease.objects.filter(lapsed_at__isnull=True, expires_at__lte=now)
    count = 0
    for project_id in overdue.values_list("project_id", flat=True).distinct():
        while reclaimed := reclaim(project_id, now):
            count += reclaimed
    forgotten = Lease.objects.filter(lapsed_at__lte=now - LAPSED_LEASES_KEPT)
    # Two sweeps at once take rows in any order: who finds one taken leaves it, as waiting for each other never ends.
    Lease.objects.filter(pk__in=forgotten.select_for_update(skip_locked=True).values("pk")).delete()
    return count


def display_order(membership: Membership, comparison: Comparison) -> list[int]:
    """Return the order in which this member sees a comparison: as they saw it before, if they did."""
    own = {"comparison": comparison.pk, "annotator": membership.user_id}
    ranked = Ranking.objects.filter(**own).order_by("-revision").values_list("display_order", flat=True).first()
    held = ranked or Lease.objects.filter(**own).values_list("display_order", flat=True).first()
    return held or blinding.display_order(membership.project, comparison.pk, membership.user_id, comparison.size)


def hold(membership: Membership, comparison_id: int) -> Lease | None:
    """Hold this very comparison, if a slot is open. The membership is locked by the caller."""
    own = Ranking.objects.filter(comparison=comparison_id, annotator=membership.user_id)
    last = own.order_by("-revision").first()
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
    """Hold the comparison of a ranking that this member withdrew. Its slot is taken already: the ranking had it."""
    comparison = Comparison.objects.select_related("prompt").get(pk=ranking.comparison_id)
    now, order = timezone.now(), ranking.display_order
    lease = _write_lease(membership, comparison, ranking.reason, now, display_order=order, withdrawn=ranking.pk)
    lease.withdrawn = ranking
    return lease


def hold_returned(ranking: Ranking) -> None:
    """Hold a comparison for the annotator of a ranking that no longer counts: the ranking's slot is now the lease's."""
    now = timezone.now()
    held = {"reason": Lease.Reason.RETURNED, "taken_at": now, "expires_at": now + RETURNED_HELD, "lapsed_at": None}
    Lease.objects.update_or_create(
        comparison_id=ranking.comparison_id,
        annotator_id=ranking.annotator_id,
        defaults=held,
        create_defaults=held
        | {"project_id": ranking.project_id, "size": ranking.size, "display_order": ranking.display_order},
    )


def lock_member(membership: Membership) -> None:
    """First lock of every write by an annotator. The project's settings are read again beside it."""
    # NO KEY: rows that refer to the membership may still be written.
    (row,) = statements.run(MEMBER, [membership.pk]) or (None,)
    if row is None:
        raise NotFound(_("You are not a member of this project any more."))
    *settings, membership.role, membership.qualified_at, before, given = row
    membership.gold_given_before, membership.gold_given = before, given
    membership.project = statements.build(Project, settings)


def lock_lease(membership: Membership, lease_id: UUID) -> Lease:
    """The member's own lease, lapsed or not, locked."""
    (row,) = statements.run(OWN_LEASE, [lease_id, membership.user_id, membership.project_id]) or (None,)
    if row is None:
        raise NotFound(_("You do not hold this comparison."))
    return statements.build(Lease, row)


def lock_comparison(comparison_id: int) -> Comparison:
    return Comparison.objects.select_for_update(no_key=True).get(pk=comparison_id)


def take_slot(comparison_id: int) -> bool:
    """Take one of the comparison's open slots, if there is one. Waits for whoever is writing to it."""
    open_ones = Comparison.objects.filter(pk=comparison_id, open_slots__gt=0)
    return open_ones.update(open_slots=F("open_slots") - 1) == 1


def take_slot_again(lease: Lease) -> bool:
    """Take the slot of a lapsed lease again, if there is one."""
    return not gold.is_gone(lease) and take_slot(lease.comparison_id)


def end_lease(lease: Lease, *, slot_is_used: bool) -> None:
    """Delete a locked lease; its slot opens unless a ranking has taken it, or it lapsed and is open already."""
    lease.delete()
    if not slot_is_used and lease.lapsed_at is None:
        _open_slot(lease.comparison_id)


def _held(membership: Membership, now: datetime) -> list[Lease]:
    # Locked, so that none of them lapses between this look and the renewal.
    rows = statements.run(HELD, [membership.user_id, membership.project_id, now])
    held = [statements.build(Lease, row) for row in rows]
    return sorted(held, key=lambda lease: (lease.reason != Lease.Reason.RETURNED, lease.withdrawn_id is None))


def _with_slot(comparison: Comparison) -> Comparison:
    """Of a comparison that is locked with a slot open."""
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
    """The row for a slot just taken."""
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
