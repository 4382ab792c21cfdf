"""Discarding one ranking, or all of an annotator since a moment: rows stay, and another annotator is asked."""

from datetime import timedelta
from uuid import uuid4

import pytest
from django.utils import timezone

from feedback.actions import rankings, review_undo, reviews
from feedback.errors import Conflict
from feedback.export import ranking_record
from feedback.models import Comparison, Ranking, Review
from feedback.quality import agreement
from feedback.queue import gold, leases
from tests.factories import adjudicate, rank_by_position, rank_next
from tests.feedback.review.outcomes import counters, last_revision, preference, preferences

pytestmark = pytest.mark.django_db


class TestDiscard:
    @pytest.mark.slow
    def test_a_discarded_ranking_leaves_the_preferences_and_stays_in_the_record(self, ann, rita, work, project):
        work(1)
        ranking = rank_by_position(ann, [1, 2])
        reviews.discard(rita, ranking.pk, reason="Clicked through.")
        assert preferences(project) == []
        kept = last_revision(ann)
        assert (kept.standing, kept.is_live, kept.revision, kept.ranks) == ("discarded", False, 2, [1, 2])
        assert (kept.review.reviewer, kept.review.reason) == (rita.user, "Clicked through.")

    @pytest.mark.slow
    def test_the_slot_of_a_discarded_ranking_goes_to_another_annotator(self, ann, cole, rita, work, project):
        (comparison,) = work(1)
        reviews.discard(rita, rank_by_position(ann, [1, 2]).pk, reason="No.")
        assert counters(comparison) == (1, 0, 1)
        assert leases.lease_next(ann) is None
        rank_by_position(cole, [2, 1])
        assert preferences(project) == [preference(cole, [2, 1])]
        assert counters(comparison) == (1, 1, 0)

    @pytest.mark.slow
    def test_a_discarded_ranking_leaves_agreement_and_gold(self, ann, cole, rita, work, project):
        comparisons = work(2, wanted_rankings=2)
        for _ in comparisons:
            rank_by_position(ann, [1, 2])
            rank_by_position(cole, [2, 1])
        Comparison.objects.filter(pk=comparisons[0].pk).update(gold_ranks=[1, 2])
        for ranking in Ranking.objects.filter(annotator=cole.user):
            reviews.discard(rita, ranking.pk, reason="No.")
        assert agreement.measure(project).pairwise.value is None
        assert list(gold.pass_rates(project)) == [ann.user_id]

    def test_the_annotator_cannot_revise_a_discarded_ranking(self, ann, rita, work):
        work(1)
        ranking = rank_by_position(ann, [1, 2])
        reviews.discard(rita, ranking.pk, reason="No.")
        for each in Ranking.objects.all():
            with pytest.raises(Conflict, match="reviewer"):
                rankings.revise_ranking(ann, each.pk, [2, 1], idempotency_key=uuid4(), seconds=1.0)
        assert rankings.recent(ann) == []

    @pytest.mark.slow
    def test_an_undone_decision_lets_the_ranking_count_again(self, ann, rita, work, project):
        (comparison,) = work(1)
        decision = reviews.discard(rita, rank_by_position(ann, [1, 2]).pk, reason="No.")
        review_undo.undo(rita, decision.pk)
        assert preferences(project) == [preference(ann, [1, 2])]
        assert counters(comparison) == (1, 1, 0)
        assert (last_revision(ann).revision, last_revision(ann).standing) == (3, "counts")

    def test_a_discard_undone_after_another_annotator_ranked_lets_both_count(self, ann, cole, bea, rita, work, project):
        (comparison,) = work(1)
        decision = reviews.discard(rita, rank_by_position(ann, [1, 2]).pk, reason="No.")
        leases.lease_next(cole)
        review_undo.undo(rita, decision.pk)
        assert counters(comparison) == (2, 1, 0)
        assert leases.lease_next(bea) is None
        rank_by_position(cole, [2, 1])
        assert len(preferences(project)) == 2

    @pytest.mark.slow
    def test_a_discard_undone_after_an_adjudication_leaves_the_ranking_overruled(
        self, ann, cole, rita, disputed, project
    ):
        decision = reviews.discard(rita, last_revision(ann).pk, reason="No.")
        settled = adjudicate(rita, disputed, [1, 1])
        review_undo.undo(rita, decision.pk)
        assert last_revision(ann).standing == "overruled"
        assert preferences(project) == [preference(rita, [1, 1])]
        counters(disputed)
        review_undo.undo(rita, settled.review_id)
        assert preferences(project) == sorted([preference(ann, [1, 2]), preference(cole, [2, 1])])
        assert counters(disputed) == (3, 2, 1)

    @pytest.mark.slow
    def test_an_overruled_ranking_can_be_discarded_too(self, ann, cole, rita, disputed, project):
        settled = adjudicate(rita, disputed, [1, 1])
        reviews.discard(rita, last_revision(ann).pk, reason="No.")
        counters(disputed)
        review_undo.undo(rita, settled.review_id)
        assert preferences(project) == [preference(cole, [2, 1])]
        assert counters(disputed) == (3, 1, 2)

    @pytest.mark.slow
    def test_an_adjudication_is_undone_and_not_discarded(self, rita, disputed):
        ranking = adjudicate(rita, disputed, [1, 1])
        for act in (reviews.discard, reviews.return_ranking):
            with pytest.raises(Conflict, match="undo the adjudication"):
                act(rita, ranking.pk, reason="No.")

    def test_a_ranking_that_was_revised_meanwhile_is_not_discarded(self, ann, rita, work):
        work(1)
        ranking = rank_by_position(ann, [1, 2])
        rankings.revise_ranking(ann, ranking.pk, [2, 1], idempotency_key=uuid4(), seconds=1.0)
        for act in (reviews.discard, reviews.return_ranking):
            with pytest.raises(Conflict, match="meanwhile"):
                act(rita, ranking.pk, reason="No.")


class TestDiscardSince:
    @pytest.fixture
    def busy(self, ann, cole, work):
        """Ten comparisons ranked by both; Ann's first four are a month old."""
        comparisons = work(10, wanted_rankings=2)
        for _ in comparisons:
            rank_by_position(ann, [1, 2])
            rank_by_position(cole, [1, 2])
        old = Ranking.objects.filter(annotator=ann.user).order_by("id").values_list("pk", flat=True)[:4]
        Ranking.objects.filter(pk__in=list(old)).update(created_at=timezone.now() - timedelta(days=30))
        return comparisons

    @pytest.mark.slow
    def test_a_preview_shows_counts_and_the_discard_is_all_or_nothing(self, ann, cole, rita, busy, project):
        yesterday = timezone.now() - timedelta(days=1)
        Comparison.objects.filter(pk=last_revision(ann).comparison_id).update(gold_ranks=[1, 2])
        preview = reviews.discard_preview(rita, ann.user_id, yesterday)
        assert preview == reviews.DiscardPreview(rankings=6, gold=1, reopened=5)
        with pytest.raises(Conflict, match="6 rankings to discard by now, not 5"):
            reviews.discard_since(rita, ann.user_id, yesterday, reason="Careless.", expected=5)
        assert not Review.objects.exists()
        decision = reviews.discard_since(rita, ann.user_id, yesterday, reason="Careless.", expected=6)
        assert decision.ranking_count == 6
        assert [row["annotator"] for row in ranking_record.rankings(project)].count(
            ranking_record.pseudonym(ann.user_id)
        ) == 4
        assert [row["annotator"] for row in ranking_record.rankings(project)].count(
            ranking_record.pseudonym(cole.user_id)
        ) == 9
        for comparison in busy:
            counters(comparison)

    @pytest.mark.slow
    def test_discarding_since_a_day_is_undone_as_one_decision(self, ann, bea, rita, busy, project):
        since = timezone.now() - timedelta(days=90)
        before = preferences(project)
        decision = reviews.discard_since(rita, ann.user_id, since, reason="Careless.", expected=10)
        assert rank_next(bea)
        review_undo.undo(rita, decision.pk)
        assert len(preferences(project)) == 21
        assert [each for each in preferences(project) if each[0] != ranking_record.pseudonym(bea.user_id)] == before
        for comparison in busy:
            counters(comparison)

    @pytest.mark.slow
    def test_adjudications_are_not_among_a_persons_rankings(self, ann, rita, busy, project):
        adjudicate(rita, busy[0], [2, 1])
        since = timezone.now() - timedelta(days=90)
        assert reviews.discard_preview(rita, rita.user_id, since).rankings == 0
        assert reviews.discard_preview(rita, ann.user_id, since) == reviews.DiscardPreview(10, 0, 9)
        with pytest.raises(Conflict, match="nothing to discard"):
            reviews.discard_since(rita, rita.user_id, since, reason="x", expected=0)

    @pytest.mark.slow
    def test_discarding_since_a_day_needs_at_most_fourteen_queries(
        self, ann, rita, busy, django_assert_max_num_queries
    ):
        with django_assert_max_num_queries(14):
            reviews.discard_since(rita, ann.user_id, timezone.now() - timedelta(days=90), reason="x", expected=10)
