"""What reviewers decide: what leaves the preferences, what stays in the record, and how each is taken back."""

import random
from datetime import timedelta
from itertools import combinations
from uuid import uuid4

import pytest
from django.utils import timezone

from feedback import agreement, export, gold, intake, judging, queue, review
from feedback.errors import Conflict, Forbidden, Invalid, NotFound
from feedback.models import Comparison, Lease, Membership, Ranking, Review
from tests.conftest import person
from tests.feedback.conftest import membership, rank_next

pytestmark = pytest.mark.django_db


@pytest.fixture
def rita(project) -> Membership:
    """A reviewer."""
    return membership(person(project, "rita", "reviewer"), project)


@pytest.fixture
def bea(project) -> Membership:
    return membership(person(project, "bea", "annotator"), project)


def rank_by_position(member, ranks, **said):
    """Rank the next comparison; `ranks` by position."""
    lease = queue.lease_next(member)
    shown = [ranks[position] for position in lease.display_order]
    return judging.record(member, lease.pk, shown, idempotency_key=uuid4(), seconds=2.0, **said)


def adjudicate(member, comparison, by_position, **said):
    order = queue.display_order(comparison.pk, member.user_id, comparison.size)
    ranks = [by_position[position] for position in order]
    said = {"idempotency_key": uuid4(), "seconds": 4.0, **said}
    return review.adjudicate(member, comparison.pk, ranks, **said)


@pytest.fixture
def disputed(ann, cole, work) -> Comparison:
    """Ann prefers the first completion, Cole the second; a third ranking is wanted."""
    (comparison,) = work(1, wanted_rankings=3)
    rank_by_position(ann, [1, 2])
    rank_by_position(cole, [2, 1])
    return comparison


def of(member) -> Ranking:
    """Their last word, whatever became of it."""
    return Ranking.objects.filter(annotator=member.user_id).order_by("-id").first()


def counters(comparison):
    comparison.refresh_from_db()
    live = comparison.rankings.filter(is_live=True).count()
    held = comparison.leases.filter(lapsed_at__isnull=True).count()
    assert comparison.ranking_count == live
    if comparison.adjudicated_at is None:
        assert comparison.open_slots == comparison.wanted_rankings - live - held
    else:
        assert (comparison.open_slots, held) == (0, 0)
    return comparison.wanted_rankings, comparison.ranking_count, comparison.open_slots


def preferences(project):
    """(annotator's id, ranks) of what there is to learn from."""
    return sorted((row["annotator"], row["ranks"]) for row in export.rankings(project))


def said(member, ranks):
    return (export.pseudonym(member.user_id), ranks)


class TestAdjudication:
    def test_the_reviewers_ranking_is_the_only_one_that_counts(self, ann, cole, rita, disputed, project):
        adjudicate(rita, disputed, [2, 1], reason="The second one answers.")
        assert preferences(project) == [said(rita, [2, 1])]
        assert {row["annotator"] for row in export.preferences(project)} == {export.pseudonym(rita.user_id)}

    def test_nothing_is_lost(self, ann, rita, disputed):
        ranking = adjudicate(rita, disputed, [2, 1], reason="The second one answers.")
        assert (ranking.reason, ranking.seconds, ranking.revision) == ("adjudication", 4.0, 1)
        first, overruled = Ranking.objects.filter(annotator=ann.user).order_by("revision")
        assert (first.standing, first.is_live) == ("counts", False)
        assert (overruled.standing, overruled.is_live, overruled.ranks) == ("overruled", True, first.ranks)
        assert overruled.created_at == first.created_at  # when it was said
        decision = overruled.review
        assert (decision.reviewer, decision.reason) == (rita.user, "The second one answers.")
        assert decision.ranking_count == 2

    def test_the_comparison_is_settled(self, bea, rita, disputed):
        held = queue.lease_next(bea)
        assert held.comparison == disputed
        adjudicate(rita, disputed, [2, 1])
        assert counters(disputed) == (3, 3, 0)
        assert queue.lease_next(bea) is None
        with pytest.raises(Conflict, match="no more rankings"):
            judging.record(bea, held.pk, [1, 2], idempotency_key=uuid4(), seconds=1.0)
        with pytest.raises(Conflict):
            queue.renew(bea, held.pk)
        queue.sweep()
        assert counters(disputed) == (3, 3, 0)

    def test_agreement_is_still_that_of_the_people_who_disagreed(self, rita, disputed, project):
        before = agreement.measure(project)
        assert before.pairwise.value == 0
        adjudicate(rita, disputed, [2, 1])
        assert agreement.measure(project) == before

    def test_an_overruled_annotator_may_revise_and_still_does_not_count(self, ann, rita, disputed, project):
        adjudicate(rita, disputed, [2, 1])
        judging.revise(ann, of(ann).pk, [1, 1], idempotency_key=uuid4(), seconds=1.0)
        assert preferences(project) == [said(rita, [2, 1])]
        assert of(ann).standing == "overruled"

    def test_the_reviewer_may_revise_it(self, ann, cole, rita, disputed, project):
        ranking = adjudicate(rita, disputed, [2, 1])
        revised = judging.revise(rita, ranking.pk, [1, 1], idempotency_key=uuid4(), seconds=1.0)
        assert revised.reason == "adjudication"
        assert preferences(project) == [said(rita, [1, 1])]
        review.undo(rita, ranking.review_id)
        assert preferences(project) == sorted([said(ann, [1, 2]), said(cole, [2, 1])])

    def test_undone_it_leaves_everything_as_it_was(self, ann, cole, bea, rita, disputed, project):
        queue.lease_next(bea)
        ranking = adjudicate(rita, disputed, [2, 1])
        review.undo(rita, ranking.review_id)
        assert preferences(project) == sorted([said(ann, [1, 2]), said(cole, [2, 1])])
        assert counters(disputed) == (3, 2, 1)
        assert queue.lease_next(bea).comparison == disputed
        decision = Review.objects.get()
        assert decision.undone_by == rita.user
        assert decision.undone_at is not None
        with pytest.raises(Conflict, match="undone already"):
            review.undo(rita, decision.pk)

    def test_a_reviewer_who_ranked_it_before_gets_their_own_opinion_back(self, ann, rita, work, project):
        (comparison,) = work(1, wanted_rankings=2)
        rank_by_position(ann, [1, 2])
        rank_by_position(rita, [1, 1])
        ranking = adjudicate(rita, comparison, [2, 1])
        assert ranking.revision == 2
        assert preferences(project) == [said(rita, [2, 1])]
        assert counters(comparison) == (2, 2, 0)
        review.undo(rita, ranking.review_id)
        assert preferences(project) == sorted([said(ann, [1, 2]), said(rita, [1, 1])])
        assert counters(comparison) == (2, 2, 0)

    def test_it_can_be_settled_again_after_an_undo(self, rita, mona, disputed, project):
        first = adjudicate(rita, disputed, [2, 1])
        with pytest.raises(Conflict, match="adjudicated already"):
            adjudicate(mona, disputed, [1, 2])
        review.undo(mona, first.review_id)
        adjudicate(mona, disputed, [1, 2])
        assert preferences(project) == [said(mona, [1, 2])]

    def test_sent_twice_it_is_one(self, rita, disputed):
        key = uuid4()
        first = adjudicate(rita, disputed, [2, 1], idempotency_key=key)
        assert adjudicate(rita, disputed, [1, 2], idempotency_key=key) == first
        assert Review.objects.count() == 1

    def test_no_more_opinions_are_asked_of_it(self, ann, cole, bea, rita, work, project):
        project.extra_opinions = 3
        project.save()
        (comparison,) = work(1, wanted_rankings=2)
        rank_by_position(ann, [1, 2])
        rank_by_position(cole, [2, 1])
        assert queue.lease_next(bea).reason == "disagreement"
        adjudicate(rita, comparison, [1, 1])
        assert queue.lease_next(bea) is None

    def test_what_cannot_be_settled_says_why(self, ann, rita, work, project, disputed):
        work(1)
        (unranked,) = Comparison.objects.filter(ranking_count=0)
        with pytest.raises(Conflict, match="Nobody else has ranked"):
            adjudicate(rita, unranked, [1, 2])
        with pytest.raises(Invalid, match="each of the 2"):
            review.adjudicate(rita, disputed.pk, [1], idempotency_key=uuid4(), seconds=1.0)
        with pytest.raises(NotFound):
            review.adjudicate(rita, 10**9, [1, 2], idempotency_key=uuid4(), seconds=1.0)
        Comparison.objects.filter(pk=disputed.pk).update(gold_ranks=[1, 2])
        with pytest.raises(Conflict, match="gold"):
            adjudicate(rita, disputed, [1, 2])
        assert not Review.objects.exists()

    def test_nobody_settles_what_they_wrote(self, ann, rita, disputed, project):
        written = intake.add_demonstration(rita, disputed.prompt, "mine")
        other = disputed.items.first().completion_id
        (made,) = intake.add_comparisons(project, [[written.completion_id, other]], priority=1).ids
        rank_next(ann)
        with pytest.raises(Conflict, match="You wrote"):
            adjudicate(rita, Comparison.objects.get(pk=made), [1, 2])


class TestReturn:
    def test_it_counts_no_more_until_it_is_answered(self, ann, rita, work, project):
        (comparison,) = work(1)
        ranking = rank_by_position(ann, [1, 2])
        review.return_ranking(rita, ranking.pk, reason="Read the second one again.")
        assert preferences(project) == []
        assert counters(comparison) == (1, 0, 0)

    def test_its_annotator_gets_it_before_new_work_with_the_reason(self, ann, rita, work, project):
        work(5)
        ranking = rank_by_position(ann, [1, 2], comment="first")
        on_screen = queue.lease_next(ann)
        review.return_ranking(rita, ranking.pk, reason="Read the second one again.")
        lease = queue.lease_next(ann, beside=[on_screen.pk])
        assert lease.comparison_id == ranking.comparison_id
        assert lease.display_order == ranking.display_order
        assert queue.lease_next(ann) == lease  # a reload shows it first, too
        returned = judging.returned_to(lease)
        assert (returned.review.reason, returned.ranks, returned.comment) == (
            "Read the second one again.",
            ranking.ranks,
            "first",
        )

    def test_the_answer_is_a_revision_that_counts(self, ann, rita, work, project):
        (comparison,) = work(1)
        ranking = rank_by_position(ann, [1, 2])
        review.return_ranking(rita, ranking.pk, reason="Again.")
        answer = rank_by_position(ann, [2, 1])
        assert (answer.revision, answer.reason, answer.standing) == (3, "sampled", "counts")
        assert preferences(project) == [said(ann, [2, 1])]
        assert counters(comparison) == (1, 1, 0)
        assert queue.lease_next(ann) is None

    def test_it_may_be_returned_again(self, ann, rita, work, project):
        work(1)
        for _ in range(3):
            ranking = rank_by_position(ann, [1, 2])
            review.return_ranking(rita, ranking.pk, reason="Again.")
        assert rank_by_position(ann, [2, 1]).revision == 7
        assert preferences(project) == [said(ann, [2, 1])]

    def test_opening_the_page_does_not_shorten_the_week(self, ann, cole, rita, work):
        work(1)
        ranking = rank_by_position(ann, [1, 2])
        review.return_ranking(rita, ranking.pk, reason="Again.")
        assert queue.lease_next(ann).expires_at > timezone.now() + timedelta(days=6)
        assert queue.lease_next(cole) is None

    def test_after_a_week_somebody_else_is_asked(self, ann, cole, rita, work, project):
        (comparison,) = work(1)
        ranking = rank_by_position(ann, [1, 2])
        review.return_ranking(rita, ranking.pk, reason="Again.")
        Lease.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
        rank_by_position(cole, [2, 1])
        assert preferences(project) == [said(cole, [2, 1])]
        assert counters(comparison) == (1, 1, 0)
        assert queue.lease_next(ann) is None

    def test_one_who_cannot_judge_it_skips_it(self, ann, cole, rita, work):
        (comparison,) = work(1)
        ranking = rank_by_position(ann, [1, 2])
        review.return_ranking(rita, ranking.pk, reason="Again.")
        judging.skip(ann, queue.lease_next(ann).pk)
        assert counters(comparison) == (1, 0, 1)
        again = judging.undo(ann)
        assert judging.returned_to(again).ranks == [1, 2]
        judging.skip(ann, again.pk)
        assert queue.lease_next(cole).comparison == comparison

    def test_one_who_skipped_what_counts_again_has_nothing_to_answer(self, ann, rita, work, project):
        (comparison,) = work(1)
        decision = review.return_ranking(rita, rank_by_position(ann, [1, 2]).pk, reason="Again.")
        judging.skip(ann, queue.lease_next(ann).pk)
        review.undo(rita, decision.pk)
        Comparison.objects.filter(pk=comparison.pk).update(wanted_rankings=2, open_slots=1)
        with pytest.raises(Conflict):
            judging.undo(ann)
        assert counters(comparison) == (2, 1, 1)
        assert preferences(project) == [said(ann, [1, 2])]

    def test_returned_ones_do_not_keep_people_from_new_work(self, ann, rita, work):
        work(12)
        rankings = [rank_next(ann) for _ in range(6)]
        for ranking in rankings:
            review.return_ranking(rita, ranking.pk, reason="Again.")
        held = []
        for _ in range(6 + queue.MOST_LEASES):
            held.append(queue.lease_next(ann, beside=held).pk)
        with pytest.raises(Conflict, match="You hold 5"):
            queue.lease_next(ann, beside=held)

    def test_undone_it_counts_again(self, ann, rita, work, project):
        (comparison,) = work(1)
        ranking = rank_by_position(ann, [1, 2])
        decision = review.return_ranking(rita, ranking.pk, reason="Again.")
        queue.lease_next(ann)
        review.undo(rita, decision.pk)
        assert preferences(project) == [said(ann, [1, 2])]
        assert counters(comparison) == (1, 1, 0)
        assert queue.lease_next(ann) is None

    def test_undone_after_somebody_else_was_asked_both_count(self, ann, cole, rita, work, project):
        (comparison,) = work(1)
        ranking = rank_by_position(ann, [1, 2])
        decision = review.return_ranking(rita, ranking.pk, reason="Again.")
        Lease.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
        rank_by_position(cole, [2, 1])
        review.undo(rita, decision.pk)
        assert preferences(project) == sorted([said(ann, [1, 2]), said(cole, [2, 1])])
        assert counters(comparison) == (2, 2, 0)

    def test_an_answer_cannot_be_undone_for_its_annotator(self, ann, rita, work, project):
        work(1)
        decision = review.return_ranking(rita, rank_by_position(ann, [1, 2]).pk, reason="Again.")
        rank_by_position(ann, [2, 1])
        with pytest.raises(Conflict, match="nothing to undo"):
            review.undo(rita, decision.pk)
        assert preferences(project) == [said(ann, [2, 1])]
        assert Review.objects.get().undone_at is None

    def test_gold_and_people_who_left_get_nothing_returned(self, ann, cole, rita, work, project):
        work(2)
        rank_next(ann)
        Comparison.objects.filter(pk=of(ann).comparison_id).update(gold_ranks=[1, 2])
        with pytest.raises(Conflict, match="gold"):
            review.return_ranking(rita, of(ann).pk, reason="Again.")
        rank_next(cole)
        cole.delete()
        with pytest.raises(Conflict, match="no member"):
            review.return_ranking(rita, of(cole).pk, reason="Again.")


class TestDiscard:
    def test_it_leaves_the_preferences_and_stays_in_the_record(self, ann, rita, work, project):
        work(1)
        ranking = rank_by_position(ann, [1, 2])
        review.discard(rita, ranking.pk, reason="Clicked through.")
        assert preferences(project) == []
        kept = of(ann)
        assert (kept.standing, kept.is_live, kept.revision, kept.ranks) == ("discarded", False, 2, [1, 2])
        assert (kept.review.reviewer, kept.review.reason) == (rita.user, "Clicked through.")

    def test_its_slot_goes_to_somebody_else(self, ann, cole, rita, work, project):
        (comparison,) = work(1)
        review.discard(rita, rank_by_position(ann, [1, 2]).pk, reason="No.")
        assert counters(comparison) == (1, 0, 1)
        assert queue.lease_next(ann) is None
        rank_by_position(cole, [2, 1])
        assert preferences(project) == [said(cole, [2, 1])]
        assert counters(comparison) == (1, 1, 0)

    def test_it_leaves_agreement_and_gold(self, ann, cole, rita, work, project):
        comparisons = work(2, wanted_rankings=2)
        for _ in comparisons:
            rank_by_position(ann, [1, 2])
            rank_by_position(cole, [2, 1])
        Comparison.objects.filter(pk=comparisons[0].pk).update(gold_ranks=[1, 2])
        for ranking in Ranking.objects.filter(annotator=cole.user):
            review.discard(rita, ranking.pk, reason="No.")
        assert agreement.measure(project).pairwise.value is None
        assert list(gold.pass_rates(project)) == [ann.user_id]

    def test_its_annotator_can_no_longer_revise_it(self, ann, rita, work):
        work(1)
        ranking = rank_by_position(ann, [1, 2])
        review.discard(rita, ranking.pk, reason="No.")
        for each in Ranking.objects.all():
            with pytest.raises(Conflict, match="reviewer"):
                judging.revise(ann, each.pk, [2, 1], idempotency_key=uuid4(), seconds=1.0)
        assert judging.recent(ann) == []

    def test_undone_it_counts_again(self, ann, rita, work, project):
        (comparison,) = work(1)
        decision = review.discard(rita, rank_by_position(ann, [1, 2]).pk, reason="No.")
        review.undo(rita, decision.pk)
        assert preferences(project) == [said(ann, [1, 2])]
        assert counters(comparison) == (1, 1, 0)
        assert (of(ann).revision, of(ann).standing) == (3, "counts")

    def test_undone_after_the_slot_went_to_another_both_count(self, ann, cole, bea, rita, work, project):
        (comparison,) = work(1)
        decision = review.discard(rita, rank_by_position(ann, [1, 2]).pk, reason="No.")
        queue.lease_next(cole)
        review.undo(rita, decision.pk)
        assert counters(comparison) == (2, 1, 0)
        assert queue.lease_next(bea) is None
        rank_by_position(cole, [2, 1])
        assert len(preferences(project)) == 2

    def test_undone_after_the_comparison_was_settled_it_is_overruled(self, ann, cole, rita, disputed, project):
        decision = review.discard(rita, of(ann).pk, reason="No.")
        settled = adjudicate(rita, disputed, [1, 1])
        review.undo(rita, decision.pk)
        assert of(ann).standing == "overruled"
        assert preferences(project) == [said(rita, [1, 1])]
        counters(disputed)
        review.undo(rita, settled.review_id)
        assert preferences(project) == sorted([said(ann, [1, 2]), said(cole, [2, 1])])
        assert counters(disputed) == (3, 2, 1)

    def test_an_overruled_one_can_be_discarded_too(self, ann, cole, rita, disputed, project):
        settled = adjudicate(rita, disputed, [1, 1])
        review.discard(rita, of(ann).pk, reason="No.")
        counters(disputed)
        review.undo(rita, settled.review_id)
        assert preferences(project) == [said(cole, [2, 1])]
        assert counters(disputed) == (3, 1, 2)

    def test_an_adjudication_is_undone_and_not_discarded(self, rita, disputed):
        ranking = adjudicate(rita, disputed, [1, 1])
        for act in (review.discard, review.return_ranking):
            with pytest.raises(Conflict, match="undo the adjudication"):
                act(rita, ranking.pk, reason="No.")

    def test_what_was_revised_meanwhile_is_looked_at_again(self, ann, rita, work):
        work(1)
        ranking = rank_by_position(ann, [1, 2])
        judging.revise(ann, ranking.pk, [2, 1], idempotency_key=uuid4(), seconds=1.0)
        for act in (review.discard, review.return_ranking):
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

    def test_the_counts_come_first_and_then_all_of_it_or_nothing(self, ann, cole, rita, busy, project):
        yesterday = timezone.now() - timedelta(days=1)
        Comparison.objects.filter(pk=of(ann).comparison_id).update(gold_ranks=[1, 2])
        toll = review.toll_of_discarding(rita, ann.user_id, yesterday)
        assert toll == review.Toll(rankings=6, gold=1, reopened=5)
        with pytest.raises(Conflict, match="6 rankings to discard by now, not 5"):
            review.discard_since(rita, ann.user_id, yesterday, reason="Careless.", expected=5)
        assert not Review.objects.exists()
        decision = review.discard_since(rita, ann.user_id, yesterday, reason="Careless.", expected=6)
        assert decision.ranking_count == 6
        assert [row["annotator"] for row in export.rankings(project)].count(export.pseudonym(ann.user_id)) == 4
        assert [row["annotator"] for row in export.rankings(project)].count(export.pseudonym(cole.user_id)) == 9
        for comparison in busy:
            counters(comparison)

    def test_it_is_undone_as_one_where_others_have_not_answered(self, ann, bea, rita, busy, project):
        since = timezone.now() - timedelta(days=90)
        before = preferences(project)
        decision = review.discard_since(rita, ann.user_id, since, reason="Careless.", expected=10)
        assert rank_next(bea)
        review.undo(rita, decision.pk)
        assert len(preferences(project)) == 21
        assert [each for each in preferences(project) if each[0] != export.pseudonym(bea.user_id)] == before
        for comparison in busy:
            counters(comparison)

    def test_adjudications_are_not_among_it(self, ann, rita, busy, project):
        adjudicate(rita, busy[0], [2, 1])
        since = timezone.now() - timedelta(days=90)
        assert review.toll_of_discarding(rita, rita.user_id, since).rankings == 0
        assert review.toll_of_discarding(rita, ann.user_id, since) == review.Toll(10, 0, 9)
        with pytest.raises(Conflict, match="nothing to discard"):
            review.discard_since(rita, rita.user_id, since, reason="x", expected=0)

    def test_it_asks_the_database_a_fixed_number_of_times(self, ann, rita, busy, django_assert_max_num_queries):
        with django_assert_max_num_queries(14):
            review.discard_since(rita, ann.user_id, timezone.now() - timedelta(days=90), reason="x", expected=10)


class TestWhoMay:
    def test_annotators_decide_nothing(self, ann, cole, disputed):
        ranking = of(cole)
        for act in (
            lambda: adjudicate(ann, disputed, [1, 2]),
            lambda: review.return_ranking(ann, ranking.pk, reason="x"),
            lambda: review.discard(ann, ranking.pk, reason="x"),
            lambda: review.discard_since(ann, cole.user_id, timezone.now(), reason="x", expected=1),
            lambda: review.toll_of_discarding(ann, cole.user_id, timezone.now()),
            lambda: review.undo(ann, 1),
        ):
            with pytest.raises(Forbidden):
                act()

    def test_a_role_taken_away_meanwhile_is_gone(self, rita, ann, disputed):
        Membership.objects.filter(pk=rita.pk).update(role="annotator")
        with pytest.raises(Forbidden):
            review.discard(rita, of(ann).pk, reason="x")

    def test_reviewers_elsewhere_find_nothing(self, ann, rita, stranger, disputed):
        elsewhere = stranger.memberships.get()
        ranking, decision = of(ann), review.discard(rita, of(ann).pk, reason="x")
        for act in (
            lambda: adjudicate(elsewhere, disputed, [1, 2]),
            lambda: review.return_ranking(elsewhere, ranking.pk, reason="x"),
            lambda: review.discard(elsewhere, ranking.pk, reason="x"),
            lambda: review.undo(elsewhere, decision.pk),
        ):
            with pytest.raises(NotFound):
                act()

    @pytest.mark.parametrize("reason", ["", "  ", "x" * 1001, "a\x00", "\ud800"])
    def test_a_decision_has_a_reason_that_can_be_read(self, ann, rita, disputed, reason):
        for act in (review.return_ranking, review.discard):
            with pytest.raises(Invalid):
                act(rita, of(ann).pk, reason=reason)
        assert not Review.objects.exists()


def brute_force(comparison):
    said = list(comparison.rankings.filter(is_live=True).exclude(reason="adjudication").values_list("ranks", flat=True))
    same = all_ = 0
    for one, other in combinations(said, 2):
        counts = agreement.same_preference(one, other)
        same, all_ = same + counts[0], all_ + counts[1]
    return (all_ - same) / all_ if all_ else 0


def test_disagreement_is_kept_whatever_happens_to_a_ranking(project, rita, work):
    generator = random.Random(11)
    members = [membership(person(project, f"p{index}", "annotator"), project) for index in range(4)]
    comparisons = work(6, size=4, wanted_rankings=4)
    decisions = []
    for _ in range(150):
        act = generator.choice(["rank", "rank", "revise", "discard", "return", "adjudicate", "undo", "undo"])
        member = generator.choice(members)
        live = list(Ranking.objects.filter(is_live=True, annotator=member.user))
        ranks = [generator.randint(1, 4) for _ in range(4)]
        if act == "rank":
            rank_next(member, ranks)
        elif act == "adjudicate":
            disputed = [each for each in comparisons if each.ranking_count and each.adjudicated_at is None]
            decisions += [adjudicate(rita, each, ranks).review_id for each in disputed[:1]]
        elif act == "revise" and live:
            judging.revise(member, generator.choice(live).pk, ranks, idempotency_key=uuid4(), seconds=1.0)
        elif act in ("discard", "return") and live:
            decide = review.discard if act == "discard" else review.return_ranking
            try:
                decisions.append(decide(rita, generator.choice(live).pk, reason="x").pk)
            except Conflict:  # returning what is overruled
                continue
        elif act == "undo" and decisions:
            try:
                review.undo(rita, decisions.pop(generator.randrange(len(decisions))))
            except Conflict:
                continue
        for comparison in comparisons:
            counters(comparison)
            assert comparison.disagreement == pytest.approx(brute_force(comparison))
    assert any(comparison.disagreement > 0 for comparison in comparisons)
