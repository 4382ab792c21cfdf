"""Demonstrations: answers that people write on the ranking page, to be imitated.

The author of an edited answer considers it better than its origin, the completion that it was edited from. The two make
a comparison, the *pair*, with a ranking by the author, which enters exports and reward models like any ranking. Nobody
else gets the pair to rank, and no figure about annotators counts it.

An author undoes an answer with `withdraw_if_last`, a reviewer discards it with `discard`.
"""

from collections.abc import Sequence
from uuid import uuid4

from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from feedback import imports
from feedback.actions.ranking_undo import MAX_AGE, time_of_last_action, write_withdrawal
from feedback.actions.review_revisions import Kind, Standing, checked_reason, lock_reviewer, revise_all, write_review
from feedback.dialogues import last_turn
from feedback.errors import Conflict, Invalid, NotFound
from feedback.models import Comparison, Completion, Demonstration, Lease, Membership, Ranking, Review
from feedback.queue import blinding, locks


@transaction.atomic(durable=True)
def record_demonstration(membership: Membership, number: int, text: str, *, place: int | None = None) -> Demonstration:
    """Store an answer to the prompt of a comparison that the member holds or has ranked.

    number: the comparison's number on the member's page. place: position, in the order of display, of the completion
    that was edited; None if the answer began with an empty page. Of a dialogue, the text replaces the last turn: the
    user answered the earlier ones. The same answer again changes nothing.

    Raises NotFound for a comparison of others, Invalid for a text equal to its origin.
    """
    locks.lock_member(membership)
    comparison, order = _comparison_on_page(membership, number)
    origin = None if place is None else _completion_at(comparison, order, place)
    if origin is not None and last_turn(origin.answer).strip() == text.strip():
        raise Invalid(_("Change the text first: it is still the same as the completion."))
    earlier_turns = None if origin is None else origin.turns
    demonstration = imports.add_demonstration(membership, comparison.prompt, text, dialogue=earlier_turns)
    demonstration = Demonstration.objects.with_discard().select_for_update(of=("self",)).get(pk=demonstration.pk)
    if demonstration.is_discarded:
        raise Conflict(_("A reviewer has discarded this answer: write another one."))
    is_new = demonstration.withdrawn_at is not None or demonstration.comparison_id is None
    if is_new:
        demonstration.comparison, demonstration.withdrawn_at = comparison, None
        demonstration.created_at = timezone.now()
    if is_new or demonstration.pair_id is None:
        demonstration.pair = None if origin is None else _rank_pair(membership, demonstration, origin)
    demonstration.save()
    return demonstration


@transaction.atomic(durable=True)
def withdraw_if_last(membership: Membership) -> Demonstration | None:
    """Withdraw the member's last answer if they have ranked and skipped nothing since. None if they have.

    Raises Conflict if a reviewer has discarded it.
    """
    locks.lock_member(membership)
    written = Demonstration.objects.written_in(membership.project).filter(completion__author=membership.user_id)
    last = written.with_discard().select_related("completion", "pair").order_by("-created_at", "-pk").first()
    since = time_of_last_action(membership)
    if last is None or last.created_at < timezone.now() - MAX_AGE or (since is not None and since > last.created_at):
        return None
    if last.is_discarded:
        raise Conflict(_("A reviewer has discarded your last answer: it cannot be undone any more."))
    if last.pair is not None:
        _withdraw_pair(last.pair, membership.user_id)
    last.withdrawn_at = timezone.now()
    last.save(update_fields=["withdrawn_at"])
    return last


def place_of_origin(membership: Membership, demonstration: Demonstration) -> int | None:
    """Return the place on the member's page of the completion that the answer was edited from, if there is one."""
    if demonstration.pair is None or demonstration.comparison is None:
        return None
    digest = demonstration.pair.items.get(position=1).digest
    order = _order_on_page(membership, demonstration.comparison)
    positions = dict(demonstration.comparison.items.values_list("digest", "position"))
    return order.index(positions[digest]) if order and digest in positions else None


@transaction.atomic(durable=True)
def discard(membership: Membership, demonstration_id: int, *, reason: str) -> Review:
    """Discard a demonstration, and the ranking of it and its origin. `review_undo.undo` restores both."""
    reason = checked_reason(reason)
    lock_reviewer(membership)
    demonstrations = Demonstration.objects.written_in(membership.project).with_discard()
    # The lock makes two reviewers take turns, and waits for an author who withdraws it.
    Demonstration.objects.select_for_update().filter(pk=demonstration_id).first()
    demonstration = demonstrations.select_related("completion").filter(pk=demonstration_id).first()
    if demonstration is None:
        raise NotFound(_("There is no such demonstration in this project."))
    if demonstration.is_discarded:
        raise Conflict(_("This demonstration was discarded already."))
    author = demonstration.completion.author_id
    review = write_review(
        membership, Kind.DEMONSTRATION, reason, demonstration=demonstration, annotator_id=author, ranking_count=0
    )
    if demonstration.pair_id is not None:
        locks.lock_comparison(demonstration.pair_id)
        counting = Ranking.objects.filter(comparison=demonstration.pair_id, is_live=True)
        revise_all(counting.values_list("pk", flat=True), Standing.DISCARDED, review)
        Comparison.objects.filter(pk=demonstration.pair_id).update(ranking_count=0)
    return review


def _comparison_on_page(membership: Membership, number: int) -> tuple[Comparison, list[int]]:
    """Return the comparison with this number, and the order in which its completions are displayed."""
    comparison_id = blinding.comparison_id(membership, number)
    rows = Comparison.objects.filter(pk=comparison_id, project=membership.project_id).select_related("prompt")
    comparison = rows.first()
    order = _order_on_page(membership, comparison) if comparison else None
    if comparison is None or order is None:
        raise NotFound(_("You do not hold this comparison."))
    return comparison, order


def _order_on_page(membership: Membership, comparison: Comparison) -> list[int] | None:
    """Return the order of display; None if the member neither holds nor has ranked the comparison."""
    of_member = {"comparison": comparison, "annotator_id": membership.user_id}
    held = Lease.objects.filter(**of_member).values_list("display_order", flat=True)
    ranked = Ranking.objects.filter(**of_member).exclude(reason=Lease.Reason.DEMONSTRATION).order_by("-revision")
    return held.first() or ranked.values_list("display_order", flat=True).first()


def _completion_at(comparison: Comparison, order: Sequence[int], place: int) -> Completion:
    if not 0 <= place < len(order):
        raise Invalid(_("This comparison has no completion at this position."))
    return Completion.objects.get(items__comparison=comparison, items__position=order[place])


def _rank_pair(membership: Membership, demonstration: Demonstration, origin: Completion) -> Comparison:
    """Return the pair of an answer and its origin, ranked by the author. It has no slot, so no annotator gets it."""
    pair = demonstration.pair
    if pair is None or not pair.items.filter(completion=origin).exists():
        group = [demonstration.completion_id, origin.pk]
        added = imports.add_comparisons(membership.project, [group], wanted_rankings=1, again=True)
        pair = Comparison.objects.get(pk=added.created[0])
    revisions = Ranking.objects.filter(comparison=pair, annotator=membership.user_id).order_by("-revision")
    Ranking.objects.create(
        project_id=membership.project_id,
        comparison=pair,
        annotator_id=membership.user_id,
        size=2,
        ranks=[1, 2],
        display_order=[0, 1],
        seconds=0.0,
        reason=Lease.Reason.DEMONSTRATION,
        revision=(revisions.values_list("revision", flat=True).first() or 0) + 1,
        idempotency_key=uuid4(),
    )
    Comparison.objects.filter(pk=pair.pk).update(open_slots=0, ranking_count=1)
    return pair


def _withdraw_pair(pair: Comparison, author_id: int) -> None:
    locks.lock_comparison(pair.pk)
    ranking = Ranking.objects.filter(comparison=pair, annotator=author_id, is_live=True).first()
    if ranking is not None:
        write_withdrawal(ranking)
