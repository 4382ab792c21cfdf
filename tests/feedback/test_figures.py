"""Figures of annotators: amount and quality of their work."""

from datetime import timedelta
from uuid import uuid4

import pytest
from django.db.models import F
from django.utils import timezone

from feedback import imports
from feedback.actions import rankings, reviews
from feedback.export import ranking_record
from feedback.models import Comparison, Ranking
from feedback.quality import reliability
from feedback.queue import leases
from feedback.reports import own_quality, statistics, trust
from tests.factories import membership, person, rank_next

pytestmark = [pytest.mark.slow, pytest.mark.django_db]


def figures_of(project, name):
    return next(each for each in statistics.figures_of_everybody(project) if each.user.username == name)


def move(ranking, days):
    Ranking.objects.filter(pk=ranking.pk).update(created_at=timezone.now() - timedelta(days=days))


def test_an_empty_project_has_people_without_figures(ann, mona, project):
    found = statistics.figures_of_everybody(project)
    assert [each.user.username for each in found] == ["ann", "mona"]
    assert found[0].done == statistics.WorkDone()
    assert found[0].days == [0] * statistics.DAYS
    assert (found[0].agreement, found[0].gold, found[0].flagged_checks) == (None, None, [])
    assert statistics.flagged_people(statistics.figures_of_everybody(project)) == []


def test_figures_show_the_amount_by_day_by_week_and_in_total(ann, project, work):
    work(8)
    for days in (0, 0, 3, 6, 7, 13, 14, 400):
        move(rank_next(ann, seconds=float(days + 1)), days)
    done = figures_of(project, "ann").done
    assert (done.today, done.week, done.total, done.live) == (2, 4, 8, 8)
    assert done.seconds == 7.5  # of 1, 1, 4, 7, 8, 14, 15, 401
    assert figures_of(project, "ann").days == [1, 0, 0, 0, 0, 0, 1, 1, 0, 0, 1, 0, 0, 2]


def test_a_revision_is_not_counted_twice_and_discarded_rankings_are_reported(ann, mona, project, work):
    work(3)
    first, second, third = (rank_next(ann) for _ in range(3))
    rankings.revise_ranking(ann, first.pk, [2, 1], idempotency_key=uuid4(), seconds=1.0)
    reviews.discard(mona, second.pk, reason="no")
    reviews.return_ranking(mona, third.pk, reason="again")
    done = figures_of(project, "ann").done
    assert (done.total, done.live, done.taken_out) == (3, 1, 2)


def test_adjudications_are_not_counted_as_rankings(ann, mona, project, work):
    (comparison,) = work(1)
    rank_next(ann)
    reviews.adjudicate(mona, comparison.pk, [1, 2], idempotency_key=uuid4(), seconds=99.0)
    assert figures_of(project, "mona").done == statistics.WorkDone()


def test_figures_include_skips_and_former_members(ann, cole, project, work):
    work(2)
    rankings.skip_comparison(ann, leases.lease_next(ann).pk)
    rank_next(cole)
    cole.delete()
    assert figures_of(project, "ann").skips == 1
    assert figures_of(project, "cole").role is None
    assert figures_of(project, "cole").done.total == 1


def test_work_in_another_project_is_not_counted(ann, project, stranger, work):
    work(1)
    rank_next(ann)
    elsewhere = stranger.memberships.get().project
    assert [each.user.username for each in statistics.figures_of_everybody(elsewhere)] == ["stan"]


def test_figures_show_quality_and_flagged_annotators(ann, cole, project, work):
    work(12, wanted_rankings=2)
    while rank_next(ann):  # always the first shown
        pass
    while lease := leases.lease_next(cole):
        ranks = [1 + position for position in lease.display_order]
        rankings.record_ranking(cole, lease.pk, ranks, idempotency_key=lease.pk, seconds=3)
    assert figures_of(project, "ann").agreement == figures_of(project, "cole").agreement
    assert figures_of(project, "ann").agreement.comparisons == 12
    (flagged,) = statistics.flagged_people(statistics.figures_of_everybody(project))
    assert flagged.user == ann.user
    assert "shown first" in flagged.flagged_checks[0].sentence


def test_reliability_is_that_of_the_last_report(ann, cole, project, work):
    work(4, wanted_rankings=2)
    for member in (ann, cole):
        while rank_next(member):
            pass
    assert figures_of(project, "ann").reliability is None
    report = reliability.report_at(project, ranking_record.sequence_cutoff(project))
    assert figures_of(project, "ann").reliability == report.annotators.get(annotator=ann.user)


def test_figures_name_the_people_whom_the_verdict_on_the_labels_names(ann, cole, project, work):
    work(12, wanted_rankings=2)
    while rank_next(ann):  # always the first shown
        pass
    rank_next(cole)
    report = reliability.report_at(project, ranking_record.sequence_cutoff(project))
    report.annotators.filter(annotator=cole.user).update(low=0.1, value=0.2, high=0.3)
    verdict, flagged = trust.verdict(project), statistics.flagged_people(statistics.figures_of_everybody(project))
    told = {(person.user.username, sign.sentence) for person in flagged for sign in person.flagged_checks}
    assert told == {(flag.username, flag.sentence) for flag in verdict.flags}
    assert {name for name, _ in told} == {"ann", "cole"}


def test_the_number_of_queries_does_not_depend_on_the_number_of_people(project, work, django_assert_num_queries):
    work(8, wanted_rankings=9)
    for index in range(2):
        rank_next(membership(person(project, f"p{index}", "annotator"), project))
    with django_assert_num_queries(12):
        statistics.figures_of_everybody(project)
    for index in range(2, 9):
        rank_next(membership(person(project, f"p{index}", "annotator"), project))
    with django_assert_num_queries(12):
        statistics.figures_of_everybody(project)


class TestOnesOwn:
    @pytest.fixture
    def ranked(self, ann, cole, project, work, monkeypatch):
        """Ann and Cole ranked twelve comparisons yesterday, ten more of them gold, and one is of today."""
        added = imports.add_prompts(project, [{"prompt": f"g{n}", "completions": ["a", "b"]} for n in range(10)])
        gold = [{"completion_ids": ids, "ranks": [1, 2]} for ids in added.completion_ids]
        imports.add_gold(project, gold)
        work(12, wanted_rankings=2)
        Comparison.objects.filter(gold_ranks__isnull=False).update(wanted_rankings=2, open_slots=2)
        project.gold_percent = 50
        project.save()
        monkeypatch.setattr("feedback.queue.blinding.gold_before", lambda *work: 1)  # before each piece of real work
        monkeypatch.setattr(own_quality, "BATCH", 22)
        for member in (ann, cole):
            while rank_next(member):
                pass
        assert Ranking.objects.count() == 44
        Ranking.objects.update(created_at=timezone.now() - timedelta(days=1))

    def test_own_figures_always_show_the_amount_and_the_quality_if_the_project_allows(self, ann, project, ranked):
        own = statistics.own_figures(ann)
        assert own.done.total == 22
        assert (own.agreement, own.gold) == (None, None)
        project.annotators_see_quality = True
        project.save()
        ann.refresh_from_db()
        own = statistics.own_figures(ann)
        assert own.agreement.comparisons == 12
        assert own.gold.comparisons == 10

    def test_own_quality_figures_do_not_change_while_ranking(self, ann, cole, project, ranked, work):
        """Otherwise annotators could see from a changed number whether they had just ranked gold."""
        project.annotators_see_quality = True
        project.save()
        ann.refresh_from_db()
        before = statistics.own_figures(ann)
        work(3, wanted_rankings=2)
        Comparison.objects.filter(ranking_count=0).update(gold_ranks=[1, 2])
        work(3, wanted_rankings=2)  # gold comes before real work
        rank_next(cole)
        rank_next(ann)
        after = statistics.own_figures(ann)
        assert after.done.today == before.done.today + 1
        assert (after.agreement, after.gold) == (before.agreement, before.gold)

    def test_no_quality_is_shown_before_a_batch_is_full(self, ann, project, ranked, monkeypatch):
        project.annotators_see_quality = True
        project.save()
        ann.refresh_from_db()
        monkeypatch.setattr(own_quality, "BATCH", 23)
        assert (statistics.own_figures(ann).agreement, statistics.own_figures(ann).gold) == (None, None)

    def test_neither_new_rankings_nor_revisions_reveal_gold_on_the_next_day(self, ann, cole, project, ranked, work):
        project.annotators_see_quality = True
        project.save()
        ann.refresh_from_db()
        before = statistics.own_figures(ann)
        work(1, wanted_rankings=2)
        rank_next(cole)
        rank_next(ann)
        for is_gold in (True, False):
            old = Ranking.objects.filter(annotator=ann.user, comparison__gold_ranks__isnull=not is_gold).first()
            rankings.revise_ranking(ann, old.pk, [2, 1], idempotency_key=uuid4(), seconds=1.0)
        Ranking.objects.update(created_at=F("created_at") - timedelta(days=1))
        after = statistics.own_figures(ann)
        assert after.done.total == before.done.total + 1
        assert (after.agreement, after.gold) == (before.agreement, before.gold)

    def test_a_discarded_ranking_does_not_count_in_the_quality(self, ann, mona, project, ranked):
        project.annotators_see_quality = True
        project.save()
        ann.refresh_from_db()
        reviews.discard(
            mona, Ranking.objects.filter(annotator=ann.user, comparison__gold_ranks=None).first().pk, reason="no"
        )
        assert statistics.own_figures(ann).agreement.comparisons == 11

    def test_a_pass_rate_of_few_gold_rankings_is_not_shown(self, ann, project, ranked, monkeypatch):
        monkeypatch.setattr(own_quality, "BATCH", 21)
        project.annotators_see_quality = True
        project.save()
        ann.refresh_from_db()
        gold = Ranking.objects.filter(annotator=ann.user, comparison__gold_ranks__isnull=False)
        Ranking.objects.filter(pk=gold.first().pk).update(created_at=timezone.now())
        assert statistics.own_figures(ann).gold is None

    def test_own_figures_count_returned_rankings(self, ann, mona, project, work):
        work(1)
        reviews.return_ranking(mona, rank_next(ann).pk, reason="again")
        assert statistics.own_figures(ann).returned == 1
