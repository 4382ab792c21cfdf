"""Undo of an annotator's last action: a ranking is withdrawn, a skip is deleted."""

from datetime import datetime, timedelta
from uuid import uuid4

from django.db import transaction
from django.db.models import F
from django.utils import timezone
from django.utils.translation import gettext as _

from feedback.actions import rankings
from feedback.errors import Conflict, NotFound
from feedback.models import Comparison, Lease, Membership, Ranking, Skip
from feedback.queue import claim, gold, lease_rows, locks

MAX_UNDONE = 10  # rankings in a row
MAX_AGE = timedelta(days=1)  # older rankings may have been trained on


@transaction.atomic(durable=True)
def undo_last(membership: Membership) -> Lease:
    """Undo what this member did last in the project, and hold its comparison for them again.

    A ranking does not count any more: its last revision is `withdrawn`. `lease.withdrawn` is that revision; it is None
    after a skip of a comparison that the member had not ranked. Raises NotFound if there is nothing to undo, or the
    ranking is too old or the limit of undone rankings is reached, and Conflict if others have taken the slot or a
    reviewer has decided.
    """
    locks.lock_member(membership)
    if membership.paused_at is not None:
        raise Conflict(_("You are paused in this project: nothing can be undone now."))
    last = _last_action(membership)
    if not claim.may_rank_prompt_of(membership, last.comparison_id):
        raise Conflict(_("The project's rules give this comparison to others now: it cannot be undone any more."))
    return _undo_skip(membership, last) if isinstance(last, Skip) else _withdraw(membership, last)


def time_of_last_action(membership: Membership) -> datetime | None:
    """Return when the member last ranked or skipped a comparison of the project, as far as it can be undone."""
    try:
        return _last_action(membership).created_at
    except NotFound:
        return None


def _last_action(membership: Membership) -> Ranking | Skip:
    ranking = next(iter(rankings.recent(membership, 1)), None)
    skips = Skip.objects.filter(annotator_id=membership.user_id, comparison__project_id=membership.project_id)
    skip = skips.order_by("-created_at").first()
    if skip is not None and (ranking is None or ranking.created_at < skip.created_at):
        return skip
    if ranking is None:
        raise NotFound(_("There is nothing to undo."))
    return ranking


def _withdraw(membership: Membership, ranking: Ranking) -> Lease:
    held = Lease.objects.filter(annotator_id=membership.user_id, project_id=membership.project_id)
    in_a_row = held.filter(withdrawn__isnull=False, lapsed_at__isnull=True).count()
    if ranking.created_at < timezone.now() - MAX_AGE or in_a_row >= MAX_UNDONE:
        raise NotFound(_("Only your last %(most)s rankings of the past 24 hours can be undone.") % {"most": MAX_UNDONE})
    comparison = locks.lock_comparison(ranking.comparison_id)
    ranking.refresh_from_db()
    if not ranking.is_live or ranking.standing != Ranking.Standing.COUNTS or comparison.adjudicated_at is not None:
        raise Conflict(_("A reviewer has decided on this ranking meanwhile: it cannot be undone any more."))
    write_withdrawal(ranking)
    return lease_rows.hold_withdrawn(membership, ranking)


def write_withdrawal(ranking: Ranking) -> None:
    """Make `ranking` its withdrawn revision, a copy of the row with a new standing. Its comparison is locked."""
    Ranking.objects.filter(pk=ranking.pk).update(is_live=False)
    ranking.pk, ranking.revision, ranking.idempotency_key = None, ranking.revision + 1, uuid4()
    ranking.standing, ranking.is_live, ranking.review, ranking.sequence = Ranking.Standing.WITHDRAWN, False, None, None
    ranking.save(force_insert=True)
    Comparison.objects.filter(pk=ranking.comparison_id).update(ranking_count=F("ranking_count") - 1)


def _undo_skip(membership: Membership, skip: Skip) -> Lease:
    is_taken = gold.is_stand_in_taken(skip)
    skip.delete()
    lease = None if is_taken else lease_rows.hold(membership, skip.comparison_id)
    if lease is None:
        raise Conflict(_("Others have ranked the comparison that you skipped: it needs no more rankings."))
    return lease
