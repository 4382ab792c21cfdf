"""Locks and slots: the beginning and the end of every write of an annotator or reviewer.

Every action of an annotator first locks their membership. So two requests of one annotator run one after the other, and
requests of different annotators never wait for each other. The lock order is membership, lease, comparison; a
transaction that has locked a comparison waits for no further lock.
"""

from uuid import UUID

from django.db.models import F
from django.utils.translation import gettext as _

from feedback import statements
from feedback.errors import NotFound
from feedback.models import Comparison, Lease, Membership, Project
from feedback.queue import claim, gold

READ_AGAIN = (
    *("role", "qualified_at", "gold_given_before", "gold_given"),
    *("barred_tags", "daily_limit", "total_limit", "share_limit"),
    *("paused_at", "gold_bets", "gold_answers", "gold_right"),
)
MEMBER = f"""
    SELECT {statements.columns(Project, "project")}, {", ".join(f"membership.{name}" for name in READ_AGAIN)}
    FROM feedback_membership AS membership JOIN feedback_project AS project ON project.id = membership.project_id
    WHERE membership.id = %s
    FOR NO KEY UPDATE OF membership"""
LEASE = statements.columns(Lease, "feedback_lease")
OWN_LEASE = f"SELECT {LEASE} FROM feedback_lease WHERE id = %s AND annotator_id = %s AND project_id = %s FOR UPDATE"


def lock_member(membership: Membership) -> None:
    """Lock the membership: the first lock of every write by an annotator. The project's settings are read again."""
    # NO KEY: a plain FOR UPDATE would block other transactions that write rows with a foreign key to the membership.
    (row,) = statements.run(MEMBER, [membership.pk]) or (None,)
    if row is None:
        raise NotFound(_("You are not a member of this project any more."))
    end = statements.width(Project)
    membership.project = statements.build(Project, row[:end])
    for name, value in zip(READ_AGAIN, row[end:], strict=True):
        setattr(membership, name, value)


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


def take_slot_again(membership: Membership, lease: Lease) -> bool:
    """Take a slot for a lapsed lease again. Returns whether there was one and the routing rules permit it."""
    may_rank = claim.may_rank_prompt_of(membership, lease.comparison_id)
    return may_rank and not gold.is_stand_in_taken(lease) and take_slot(lease.comparison_id)


def take_locked_slot(comparison: Comparison) -> Comparison:
    """Take a slot of a comparison that is locked with a slot open."""
    Comparison.objects.filter(pk=comparison.pk).update(open_slots=F("open_slots") - 1)
    return comparison


def open_slot(comparison_id: int) -> None:
    Comparison.objects.filter(pk=comparison_id).update(open_slots=F("open_slots") + 1)


def end_lease(lease: Lease, *, slot_is_used: bool) -> None:
    """Delete a locked lease. Its slot opens, unless a ranking uses it or it opened when the lease lapsed."""
    lease.delete()
    if not slot_is_used and lease.lapsed_at is None:
        open_slot(lease.comparison_id)
