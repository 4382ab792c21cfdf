"""An adjudication is the only ranking that counts, until it is undone."""

from uuid import uuid4

import pytest

from feedback import imports
from feedback.actions import rankings, review_undo, reviews
from feedback.errors import Conflict, Invalid, NotFound
from feedback.export import formats, ranking_record
from feedback.models import Comparison, Ranking, Review
from feedback.quality import agreement
from feedback.queue import leases
from tests.factories import adjudicate, rank_by_position, rank_next
from tests.feedback.review.outcomes import counters, last_revision, preference, preferences

pytestmark = pytest.mark.django_db


@pytest.mark.slow
def test_the_reviewers_ranking_is_the_only_one_that_counts(ann, cole, rita, disputed, project):
    adjudicate(rita, disputed, [2, 1], reason="The second one answers.")
    assert preferences(project) == [preference(rita, [2, 1])]
    assert {row["annotator"] for row in formats.lines(project, "trl")} == {ranking_record.pseudonym(rita.user_id)}


@pytest.mark.slow
def test_an_adjudication_keeps_the_overruled_rankings_in_the_record(ann, rita, disputed):
    ranking = adjudicate(rita, disputed, [2, 1], reason="The second one answers.")
    assert (ranking.reason, ranking.seconds, ranking.revision) == ("adjudication", 4.0, 1)
    first, overruled = Ranking.objects.filter(annotator=ann.user).order_by("revision")
    assert (first.standing, first.is_live) == ("counts", False)
    assert (overruled.standing, overruled.is_live, overruled.ranks) == ("overruled", True, first.ranks)
    assert overruled.created_at == first.created_at  # when it was made
    decision = overruled.review
    assert (decision.reviewer, decision.reason) == (rita.user, "The second one answers.")
    assert decision.ranking_count == 2


@pytest.mark.slow
def test_its_seconds_are_at_most_the_comparisons_age(rita, disputed):
    assert adjudicate(rita, disputed, [2, 1], seconds=3600.0).seconds < 60


@pytest.mark.slow
def test_an_adjudication_settles_the_comparison(bea, rita, disputed):
    held = leases.lease_next(bea)
    assert held.comparison == disputed
    adjudicate(rita, disputed, [2, 1])
    assert counters(disputed) == (3, 3, 0)
    assert leases.lease_next(bea) is None
    with pytest.raises(Conflict, match="no more rankings"):
        rankings.record_ranking(bea, held.pk, [1, 2], idempotency_key=uuid4(), seconds=1.0)
    with pytest.raises(Conflict):
        leases.renew(bea, held.pk)
    leases.sweep()
    assert counters(disputed) == (3, 3, 0)


@pytest.mark.slow
def test_agreement_is_still_that_of_the_people_who_disagreed(rita, disputed, project):
    before = agreement.measure(project)
    assert before.pairwise.value == 0
    adjudicate(rita, disputed, [2, 1])
    assert agreement.measure(project) == before


@pytest.mark.slow
def test_an_overruled_annotator_may_revise_and_still_does_not_count(ann, rita, disputed, project):
    adjudicate(rita, disputed, [2, 1])
    rankings.revise_ranking(ann, last_revision(ann).pk, [1, 1], idempotency_key=uuid4(), seconds=1.0)
    assert preferences(project) == [preference(rita, [2, 1])]
    assert last_revision(ann).standing == "overruled"


def test_the_reviewer_may_revise_the_adjudication(ann, cole, rita, disputed, project):
    ranking = adjudicate(rita, disputed, [2, 1])
    revised = rankings.revise_ranking(rita, ranking.pk, [1, 1], idempotency_key=uuid4(), seconds=1.0)
    assert revised.reason == "adjudication"
    assert preferences(project) == [preference(rita, [1, 1])]
    review_undo.undo(rita, ranking.review_id)
    assert preferences(project) == sorted([preference(ann, [1, 2]), preference(cole, [2, 1])])


@pytest.mark.slow
def test_undoing_a_decision_restores_the_state_before_it(ann, cole, bea, rita, disputed, project):
    leases.lease_next(bea)
    ranking = adjudicate(rita, disputed, [2, 1])
    review_undo.undo(rita, ranking.review_id)
    assert preferences(project) == sorted([preference(ann, [1, 2]), preference(cole, [2, 1])])
    assert counters(disputed) == (3, 2, 1)
    assert leases.lease_next(bea).comparison == disputed
    decision = Review.objects.get()
    assert decision.undone_by == rita.user
    assert decision.undone_at is not None
    with pytest.raises(Conflict, match="undone already"):
        review_undo.undo(rita, decision.pk)


@pytest.mark.slow
def test_undoing_an_adjudication_restores_the_reviewers_earlier_ranking(ann, rita, work, project):
    (comparison,) = work(1, wanted_rankings=2)
    rank_by_position(ann, [1, 2])
    rank_by_position(rita, [1, 1])
    ranking = adjudicate(rita, comparison, [2, 1])
    assert ranking.revision == 2
    assert preferences(project) == [preference(rita, [2, 1])]
    assert counters(comparison) == (2, 2, 0)
    review_undo.undo(rita, ranking.review_id)
    assert preferences(project) == sorted([preference(ann, [1, 2]), preference(rita, [1, 1])])
    assert counters(comparison) == (2, 2, 0)


@pytest.mark.slow
def test_a_comparison_can_be_adjudicated_again_after_an_undo(rita, mona, disputed, project):
    first = adjudicate(rita, disputed, [2, 1])
    with pytest.raises(Conflict, match="adjudicated already"):
        adjudicate(mona, disputed, [1, 2])
    review_undo.undo(mona, first.review_id)
    adjudicate(mona, disputed, [1, 2])
    assert preferences(project) == [preference(mona, [1, 2])]


def test_the_same_adjudication_sent_twice_is_one(rita, disputed):
    key = uuid4()
    first = adjudicate(rita, disputed, [2, 1], idempotency_key=key)
    assert adjudicate(rita, disputed, [1, 2], idempotency_key=key) == first
    assert Review.objects.count() == 1


@pytest.mark.slow
def test_an_adjudicated_comparison_gets_no_extra_ranking(ann, cole, bea, rita, work, project):
    project.extra_rankings = 3
    project.save()
    (comparison,) = work(1, wanted_rankings=2)
    rank_by_position(ann, [1, 2])
    rank_by_position(cole, [2, 1])
    assert leases.lease_next(bea).reason == "disagreement"
    adjudicate(rita, comparison, [1, 1])
    assert leases.lease_next(bea) is None


def test_comparisons_that_cannot_be_adjudicated_are_refused_with_the_reason(ann, rita, work, project, disputed):
    work(1)
    (unranked,) = Comparison.objects.filter(ranking_count=0)
    with pytest.raises(Conflict, match="Nobody else has ranked"):
        adjudicate(rita, unranked, [1, 2])
    with pytest.raises(Invalid, match="each of the 2"):
        reviews.adjudicate(rita, disputed.pk, [1], idempotency_key=uuid4(), seconds=1.0)
    with pytest.raises(NotFound):
        reviews.adjudicate(rita, 10**9, [1, 2], idempotency_key=uuid4(), seconds=1.0)
    Comparison.objects.filter(pk=disputed.pk).update(gold_ranks=[1, 2])
    with pytest.raises(Conflict, match="gold"):
        adjudicate(rita, disputed, [1, 2])
    assert not Review.objects.exists()


@pytest.mark.slow
def test_a_reviewer_cannot_adjudicate_a_completion_of_their_own(ann, rita, disputed, project):
    written = imports.add_demonstration(rita, disputed.prompt, "mine")
    other = disputed.items.first().completion_id
    (made,) = imports.add_comparisons(project, [[written.completion_id, other]], priority=1).ids
    rank_next(ann)
    with pytest.raises(Conflict, match="You wrote"):
        adjudicate(rita, Comparison.objects.get(pk=made), [1, 2])
