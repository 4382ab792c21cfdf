"""A returned ranking counts again once its annotator has answered."""

from datetime import timedelta

import pytest
from django.utils import timezone

from feedback.actions import ranking_undo, rankings, review_undo, reviews
from feedback.errors import Conflict
from feedback.models import Comparison, Lease, Review
from feedback.queue import leases
from tests.factories import rank_by_position, rank_next
from tests.feedback.review.outcomes import counters, last_revision, preference, preferences

pytestmark = pytest.mark.django_db


def test_a_returned_ranking_does_not_count_until_it_is_answered(ann, rita, work, project):
    (comparison,) = work(1)
    ranking = rank_by_position(ann, [1, 2])
    reviews.return_ranking(rita, ranking.pk, reason="Read the second one again.")
    assert preferences(project) == []
    assert counters(comparison) == (1, 0, 0)


def test_the_annotator_gets_the_returned_ranking_before_new_work_with_the_reason(ann, rita, work, project):
    work(5)
    ranking = rank_by_position(ann, [1, 2], comment="first")
    on_screen = leases.lease_next(ann)
    reviews.return_ranking(rita, ranking.pk, reason="Read the second one again.")
    lease = leases.lease_next(ann, beside=[on_screen.pk])
    assert lease.comparison_id == ranking.comparison_id
    assert lease.display_order == ranking.display_order
    assert leases.lease_next(ann) == lease  # a reload shows it first, too
    returned = rankings.previous_ranking(lease)
    assert (returned.review.reason, returned.ranks, returned.comment) == (
        "Read the second one again.",
        ranking.ranks,
        "first",
    )


def test_the_answer_to_a_returned_ranking_is_a_revision_that_counts(ann, rita, work, project):
    (comparison,) = work(1)
    ranking = rank_by_position(ann, [1, 2])
    reviews.return_ranking(rita, ranking.pk, reason="Again.")
    answer = rank_by_position(ann, [2, 1])
    assert (answer.revision, answer.reason, answer.standing) == (3, "sampled", "counts")
    assert preferences(project) == [preference(ann, [2, 1])]
    assert counters(comparison) == (1, 1, 0)
    assert leases.lease_next(ann) is None


def test_a_ranking_may_be_returned_again(ann, rita, work, project):
    work(1)
    for _ in range(3):
        ranking = rank_by_position(ann, [1, 2])
        reviews.return_ranking(rita, ranking.pk, reason="Again.")
    assert rank_by_position(ann, [2, 1]).revision == 7
    assert preferences(project) == [preference(ann, [2, 1])]


def test_opening_the_page_does_not_shorten_the_week(ann, cole, rita, work):
    work(1)
    ranking = rank_by_position(ann, [1, 2])
    reviews.return_ranking(rita, ranking.pk, reason="Again.")
    assert leases.lease_next(ann).expires_at > timezone.now() + timedelta(days=6)
    assert leases.lease_next(cole) is None


def test_after_a_week_another_annotator_gets_a_returned_comparison(ann, cole, rita, work, project):
    (comparison,) = work(1)
    ranking = rank_by_position(ann, [1, 2])
    reviews.return_ranking(rita, ranking.pk, reason="Again.")
    Lease.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    rank_by_position(cole, [2, 1])
    assert preferences(project) == [preference(cole, [2, 1])]
    assert counters(comparison) == (1, 1, 0)
    assert leases.lease_next(ann) is None


@pytest.mark.slow
def test_the_annotator_may_skip_a_returned_comparison(ann, cole, rita, work):
    (comparison,) = work(1)
    ranking = rank_by_position(ann, [1, 2])
    reviews.return_ranking(rita, ranking.pk, reason="Again.")
    rankings.skip_comparison(ann, leases.lease_next(ann).pk)
    assert counters(comparison) == (1, 0, 1)
    again = ranking_undo.undo_last(ann)
    assert rankings.previous_ranking(again).ranks == [1, 2]
    rankings.skip_comparison(ann, again.pk)
    assert leases.lease_next(cole).comparison == comparison


def test_after_a_skip_and_an_undone_return_the_ranking_counts_and_nothing_is_left_to_answer(ann, rita, work, project):
    (comparison,) = work(1)
    decision = reviews.return_ranking(rita, rank_by_position(ann, [1, 2]).pk, reason="Again.")
    rankings.skip_comparison(ann, leases.lease_next(ann).pk)
    review_undo.undo(rita, decision.pk)
    Comparison.objects.filter(pk=comparison.pk).update(wanted_rankings=2, open_slots=1)
    with pytest.raises(Conflict):
        ranking_undo.undo_last(ann)
    assert counters(comparison) == (2, 1, 1)
    assert preferences(project) == [preference(ann, [1, 2])]


@pytest.mark.slow
def test_returned_rankings_do_not_block_new_work(ann, rita, work):
    work(12)
    ranked = [rank_next(ann) for _ in range(6)]
    for ranking in ranked:
        reviews.return_ranking(rita, ranking.pk, reason="Again.")
    held = []
    for _ in range(6 + leases.DEFAULT_MAX_LEASES):
        held.append(leases.lease_next(ann, beside=held).pk)
    with pytest.raises(Conflict, match="You hold 5"):
        leases.lease_next(ann, beside=held)


def test_an_undone_decision_lets_the_ranking_count_again(ann, rita, work, project):
    (comparison,) = work(1)
    ranking = rank_by_position(ann, [1, 2])
    decision = reviews.return_ranking(rita, ranking.pk, reason="Again.")
    leases.lease_next(ann)
    review_undo.undo(rita, decision.pk)
    assert preferences(project) == [preference(ann, [1, 2])]
    assert counters(comparison) == (1, 1, 0)
    assert leases.lease_next(ann) is None


def test_if_a_return_is_undone_after_another_annotator_ranked_both_rankings_count(ann, cole, rita, work, project):
    (comparison,) = work(1)
    ranking = rank_by_position(ann, [1, 2])
    decision = reviews.return_ranking(rita, ranking.pk, reason="Again.")
    Lease.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    rank_by_position(cole, [2, 1])
    review_undo.undo(rita, decision.pk)
    assert preferences(project) == sorted([preference(ann, [1, 2]), preference(cole, [2, 1])])
    assert counters(comparison) == (2, 2, 0)


def test_an_answer_cannot_be_undone_for_its_annotator(ann, rita, work, project):
    work(1)
    decision = reviews.return_ranking(rita, rank_by_position(ann, [1, 2]).pk, reason="Again.")
    rank_by_position(ann, [2, 1])
    with pytest.raises(Conflict, match="nothing to undo"):
        review_undo.undo(rita, decision.pk)
    assert preferences(project) == [preference(ann, [2, 1])]
    assert Review.objects.get().undone_at is None


def test_rankings_of_gold_and_of_former_members_cannot_be_returned(ann, cole, rita, work, project):
    work(2)
    rank_next(ann)
    Comparison.objects.filter(pk=last_revision(ann).comparison_id).update(gold_ranks=[1, 2])
    with pytest.raises(Conflict, match="gold"):
        reviews.return_ranking(rita, last_revision(ann).pk, reason="Again.")
    rank_next(cole)
    cole.delete()
    with pytest.raises(Conflict, match="not a member"):
        reviews.return_ranking(rita, last_revision(cole).pk, reason="Again.")
