"""Reports of reliability: stored with the end of their record, reproducible, and the weights of rankings by them."""

import random
from uuid import uuid4

import pytest

from feedback import imports
from feedback.actions import rankings
from feedback.errors import NotFound
from feedback.export import formats, ranking_record
from feedback.models import Ranking, Reliability, ReliabilityReport
from feedback.models.reliability import PRIOR, weight_of
from feedback.quality import reliability
from feedback.queue import leases
from tests.factories import membership, person

pytestmark = [pytest.mark.slow, pytest.mark.django_db]


def rank_all(member, choose):
    """Rank all that is left for this member; `choose(positions)` gives ranks by position."""
    while lease := leases.lease_next(member):
        by_position = choose(lease.size)
        ranks = [by_position[position] for position in lease.display_order]
        rankings.record_ranking(member, lease.pk, ranks, idempotency_key=uuid4(), seconds=3.0)


def careful(size):
    return list(range(1, size + 1))


@pytest.fixture
def annotators(project, work):
    """Three who agree and one who says the opposite, each on the same 15 comparisons."""
    work(15, wanted_rankings=4)
    members = {name: membership(person(project, name, "annotator"), project) for name in ("a", "b", "c", "opposite")}
    for name, member in members.items():
        rank_all(member, careful if name != "opposite" else lambda size: careful(size)[::-1])
    return members


def reliabilities(report):
    return {each.annotator.username: each for each in report.annotators.select_related("annotator")}


def test_an_adversarial_annotator_gets_a_low_reliability(project, annotators):
    found = reliabilities(reliability.report_at(project, ranking_record.sequence_cutoff(project)))
    assert found["opposite"].is_adversarial
    assert found["opposite"].weight == 0
    for name in ("a", "b", "c"):
        assert found[name].value > 0.85
        assert not found[name].is_adversarial
        assert found[name].weight == pytest.approx(2 * found[name].value - 1, abs=1e-6)
    assert (found["a"].shared, found["a"].gold) == (15, 0)


def test_a_report_is_made_once_and_kept(project, annotators, django_assert_num_queries):
    until = ranking_record.sequence_cutoff(project)
    first = reliability.report_at(project, until)
    with django_assert_num_queries(1):
        assert reliability.report_at(project, until) == first
    assert ReliabilityReport.objects.count() == 1
    assert reliability.latest(project) == reliability.stored_report_at(project, until) == first
    with pytest.raises(NotFound, match="as of 3"):
        reliability.stored_report_at(project, 3)


def test_later_rankings_do_not_change_an_earlier_report(project, annotators, work):
    until = ranking_record.sequence_cutoff(project)
    before = sorted(reliability.values(reliability.report_at(project, until)).values())
    ReliabilityReport.objects.all().delete()
    (ranking, *_) = rankings.recent(annotators["a"])
    rankings.revise_ranking(annotators["a"], ranking.pk, [2, 1], idempotency_key=uuid4(), seconds=1.0)
    work(5, wanted_rankings=2)
    rank_all(annotators["b"], lambda size: careful(size)[::-1])
    assert ranking_record.sequence_cutoff(project) > until
    again = sorted(reliability.values(reliability.report_at(project, until)).values())
    assert again == pytest.approx(before, abs=1e-12)


def test_gold_counts_as_a_known_answer(project, ann, cole):
    """The two annotators share no comparisons, but the right rankings are known."""
    prompts = imports.add_prompts(project, [{"prompt": f"gold {n}", "completions": ["yes", "no"]} for n in range(12)])
    imports.add_gold(project, [{"completion_ids": ids, "ranks": [1, 2]} for ids in prompts.completion_ids])
    project.qualification_items, project.qualification_percent = 12, 100
    project.save()
    generator = random.Random(1)
    for member, right in ((ann, 1.0), (cole, 0.5)):
        for _ in range(12):
            lease = leases.lease_next(member)
            by_position = [1, 2] if generator.random() < right else [2, 1]
            ranks = [by_position[position] for position in lease.display_order]
            rankings.record_ranking(member, lease.pk, ranks, idempotency_key=uuid4(), seconds=1.0)
    found = reliabilities(reliability.report_at(project, ranking_record.sequence_cutoff(project)))
    assert found["ann"].gold == found["cole"].gold == 12
    # By hand: the mode of Beta(4.5, 1.5) and 12 votes is (3.5 + right) / (4 + 12).
    right = Ranking.objects.filter(annotator=cole.user_id, ranks=[1, 2]).count()
    assert found["ann"].value == pytest.approx(15.5 / 16, abs=1e-4)
    assert found["cole"].value == pytest.approx((3.5 + right) / 16, abs=1e-4)


def test_the_export_weighs_by_a_report_and_unknown_people_as_unknown(project, annotators, work):
    report = reliability.report_at(project, ranking_record.sequence_cutoff(project))
    work(2)
    rank_all(membership(person(project, "new", "annotator"), project), careful)
    known = reliabilities(report)
    weights = {f"annotator-{each.annotator_id}": each for each in known.values()}
    rows = list(ranking_record.rankings(project, reliability=reliability.values(report)))
    for row in rows:
        of = weights.get(row["annotator"])
        assert row["weight"] == (of.weight if of else weight_of(PRIOR))
        assert row["reliability"] == (of.value if of else None)
    assert {row["weight"] for row in rows} >= {0.0, weight_of(PRIOR)}
    assert {row["weight"] for row in ranking_record.rankings(project)} == {1.0}
    pairs = list(formats.lines(project, "trl", reliability=reliability.values(report)))
    assert [pair["weight"] for pair in pairs] == [row["weight"] for row in rows]


def test_reports_follow_the_record_as_it_grows(project, annotators, work):
    assert reliability.refresh() == 1
    assert reliability.refresh() == 0
    work(19)
    rank_all(annotators["a"], careful)
    assert reliability.refresh() == 0  # 19 new ones are too few
    work(2)
    rank_all(annotators["a"], careful)
    assert reliability.refresh() == 1
    assert reliability.latest(project).until == 81


def test_a_report_without_rankings_lists_no_annotator(project):
    assert reliability.latest(project) is None
    assert not reliability.report_at(project, 0).annotators.exists()


def test_two_workers_who_make_a_report_at_once_keep_one(project, annotators):
    until = ranking_record.sequence_cutoff(project)
    judged = reliability.rankings_until(project, until)
    reports = {reliability._estimate(project, until, judged) for _ in range(2)}
    assert len(reports) == 1
    assert Reliability.objects.count() == 4


@pytest.mark.parametrize(("value", "weight"), [(1.0, 1.0), (0.75, 0.5), (0.5, 0.0), (0.1, 0.0)])
def test_a_weight_is_the_share_of_votes_that_is_judgement(value, weight):
    assert weight_of(value) == pytest.approx(weight)
