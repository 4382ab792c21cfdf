"""Rows of leases: written for a comparison that has been chosen, and extended."""

from datetime import datetime, timedelta
from uuid import uuid4

from django.utils import timezone

from feedback import statements
from feedback.models import Comparison, Lease, Membership, Ranking
from feedback.queue import blinding, claim, gold, locks

RETURNED_HELD = timedelta(days=7)  # then another annotator ranks in place of one who does not answer
# The upsert renews a lapsed lease of the same annotator.
WRITE_LEASE = f"""
    INSERT INTO feedback_lease (id, project_id, comparison_id, annotator_id, size, display_order, reason, taken_at,
        expires_at, stand_in_id, withdrawn_id)
    VALUES (%(id)s, %(project)s, %(comparison)s, %(annotator)s, %(size)s, %(display_order)s, %(reason)s, %(now)s,
        %(until)s, %(stand_in)s, %(withdrawn)s)
    ON CONFLICT (comparison_id, annotator_id) DO UPDATE SET reason = EXCLUDED.reason, taken_at = EXCLUDED.taken_at,
        expires_at = EXCLUDED.expires_at, lapsed_at = NULL, stand_in_id = EXCLUDED.stand_in_id,
        withdrawn_id = EXCLUDED.withdrawn_id
    RETURNING {locks.LEASE}"""


def display_order(membership: Membership, comparison: Comparison) -> list[int]:
    """Return the order in which this member sees a comparison; the same as before if they ranked or held it."""
    seen = {"comparison": comparison.pk, "annotator": membership.user_id}
    ranked = Ranking.objects.filter(**seen).order_by("-revision").values_list("display_order", flat=True).first()
    held = ranked or Lease.objects.filter(**seen).values_list("display_order", flat=True).first()
    return held or blinding.display_order(membership.project, comparison.pk, membership.user_id, comparison.size)


def reason_of(comparison: Comparison) -> str:
    """Return why the comparison was chosen. The order of the queue puts those with most rankings first."""
    if comparison.gold_ranks is not None:  # its skip was undone
        return Lease.Reason.GOLD
    if comparison.extra_rankings:
        return Lease.Reason.DISAGREEMENT
    return Lease.Reason.STARTED if comparison.ranking_count else Lease.Reason.SAMPLED


def hold(membership: Membership, comparison_id: int) -> Lease | None:
    """Lease this comparison to the member if it has an open slot. The caller has locked the membership."""
    revisions = Ranking.objects.filter(comparison=comparison_id, annotator=membership.user_id)
    last = revisions.order_by("-revision").first()
    if (last is not None and last.is_live) or not locks.take_slot(comparison_id):
        return None
    if last is not None and last.standing == Ranking.Standing.WITHDRAWN:
        return hold_withdrawn(membership, last)
    comparison = Comparison.objects.select_related("prompt").get(pk=comparison_id)
    reason = Lease.Reason.RETURNED if last is not None else reason_of(comparison)
    if reason == Lease.Reason.GOLD and gold.must_qualify(membership):
        reason = Lease.Reason.QUALIFICATION
    order = display_order(membership, comparison)
    return write_lease(membership, comparison, reason, timezone.now(), display_order=order)


def hold_withdrawn(membership: Membership, ranking: Ranking) -> Lease:
    """Lease the comparison of a ranking that this member withdrew. The ranking's slot becomes the lease's."""
    comparison = Comparison.objects.select_related("prompt").get(pk=ranking.comparison_id)
    now, order = timezone.now(), ranking.display_order
    lease = write_lease(membership, comparison, ranking.reason, now, display_order=order, withdrawn=ranking.pk)
    lease.withdrawn = ranking
    return lease


def hold_returned(ranking: Ranking) -> None:
    """Lease the comparison of a returned ranking to its annotator. The ranking's slot becomes the lease's.

    If the routing rules keep its prompt from the annotator by now, the lease lapses at once, and the slot opens.
    """
    now = timezone.now()
    fields = {"reason": Lease.Reason.RETURNED, "taken_at": now, "expires_at": now + RETURNED_HELD, "lapsed_at": None}
    Lease.objects.update_or_create(
        comparison_id=ranking.comparison_id,
        annotator_id=ranking.annotator_id,
        defaults=fields,
        create_defaults=fields
        | {"project_id": ranking.project_id, "size": ranking.size, "display_order": ranking.display_order},
    )
    annotator = Membership.objects.filter(project=ranking.project_id, user=ranking.annotator_id).first()
    if annotator is not None and not claim.may_rank_prompt_of(annotator, ranking.comparison_id):
        held = Lease.objects.filter(comparison=ranking.comparison_id, annotator=ranking.annotator_id)
        held.update(lapsed_at=now)
        locks.open_slot(ranking.comparison_id)


def write_lease(
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


def extend(lease: Lease, membership: Membership, now: datetime) -> Lease:
    lease.expires_at, lease.lapsed_at = max(lease.expires_at, now + _lease_time(membership)), None
    lease.save(update_fields=["expires_at", "lapsed_at"])
    return lease


def _lease_time(membership: Membership) -> timedelta:
    return timedelta(minutes=membership.project.lease_minutes)
