"""Votes and evidence of a trial: what counts, in which order, for which pair of sources."""

from datetime import timedelta
from uuid import uuid4

import pytest
from django.utils import timezone

from feedback import imports
from feedback.actions import ranking_undo, rankings, reviews, trials
from feedback.export import ranking_record
from feedback.export.formats import lines
from feedback.models import Comparison, Ranking, Source
from feedback.quality.trial_evidence import ALPHA, Decision, confidence_sequence, evidence
from feedback.queue import leases
from feedback.reports import preference_export
from feedback.reports.trials import evidence_of, trials_of, votes_of
from tests.factories import adjudicate, rank_by_position

pytestmark = [pytest.mark.slow, pytest.mark.django_db]

WIN, LOSS, TIE = [2, 1], [1, 2], [1, 1]  # ranks of the served checkpoint's and the candidate's completion


@pytest.fixture
def start(project):
    """Return a function that starts a trial on new prompts; their ordinary comparisons are deleted."""

    def started(count, names=("served", "candidate"), same=0, **options):
        rows = [
            {"prompt": f"question {n}", "completions": [{"text": f"{name} {n}", "source": name} for name in names]}
            for n in range(count)
        ]
        rows += [
            {"prompt": f"equal {n}", "completions": [{"text": "equal", "source": name}]}
            for n in range(same)
            for name in names
        ]
        imports.add_prompts(project, rows)
        Comparison.objects.all().delete()
        sources = [Source.objects.get(name=name) for name in names]
        return trials.start_trial(project, sources, share=100, **options)

    return started


def the_pair(trial):
    (pair,) = evidence_of(trial).pairs
    return pair


def test_the_evidence_counts_the_votes_for_and_against_the_candidate(start, ann):
    trial = start(9, same=2)
    for ranks in (WIN, WIN, LOSS, TIE, WIN, WIN):
        rank_by_position(ann, ranks)
    found = evidence_of(trial)
    (pair,) = found.pairs
    assert (pair.candidate.name, pair.other.name, pair.identical) == ("candidate", "served", 2)
    assert (pair.evidence.wins, pair.evidence.losses, pair.evidence.ties) == (4, 1, 3)
    assert (pair.evidence.low, pair.evidence.high) == confidence_sequence(4, 1, ALPHA)
    assert pair.evidence.win_rate == pytest.approx((4 + 3 / 2) / 8)
    assert (found.comparisons, found.voted, found.votes, found.left) == (9, 6, 6, 3)
    assert found.of_candidates == found.pairs


def test_a_trial_without_votes_has_no_evidence(start):
    trial = start(2)
    assert votes_of(trial) == []
    assert (the_pair(trial).evidence.low, the_pair(trial).evidence.high) == (0.0, 1.0)
    assert evidence_of(trial).left == 2


def test_three_sources_are_tested_in_pairs_with_a_third_of_alpha(start, ann):
    trial = start(4, ("served", "b", "c"), worthwhile_share=0.6)
    for _ in range(4):
        rank_by_position(ann, [2, 3, 1])  # c before served before b
    found = evidence_of(trial)
    by_names = {(pair.candidate.name, pair.other.name): pair.evidence for pair in found.pairs}
    assert list(by_names) == [("b", "served"), ("c", "served"), ("c", "b")]
    assert [pair.candidate.name for pair in found.of_candidates] == ["b", "c"]
    lost, won = [-1] * 4, [1] * 4
    assert by_names["b", "served"] == evidence(lost, alpha=ALPHA / 3, worthwhile_share=0.6)
    assert by_names["c", "served"] == evidence(won, alpha=ALPHA / 3, worthwhile_share=0.6)
    assert by_names["c", "b"] == evidence(won, alpha=ALPHA / 3)


def test_only_a_pair_with_the_source_to_beat_is_futile(start, ann):
    trial = start(14, ("served", "b", "c"), worthwhile_share=0.9)
    for number in range(14):
        rank_by_position(ann, [1, 2, 3] if number % 2 else [3, 2, 1])
    decisions = [pair.evidence.decision for pair in evidence_of(trial).pairs]
    assert decisions == [Decision.FUTILE, Decision.FUTILE, Decision.OPEN]


def test_the_first_decisive_of_several_votes_on_a_comparison_is_tested(start, ann, cole, mona):
    trial = start(1)
    trial.comparisons.update(wanted_rankings=3, open_slots=3)
    for member, ranks in ((ann, TIE), (cole, WIN), (mona, LOSS)):
        rank_by_position(member, ranks)
    pair = the_pair(trial)
    assert (pair.evidence.wins, pair.evidence.losses, pair.evidence.ties) == (1, 0, 0)
    assert (evidence_of(trial).voted, evidence_of(trial).votes) == (1, 3)


def test_a_corrected_vote_counts_as_it_is_now_at_its_first_time(start, ann):
    trial = start(3)
    first, second = rank_by_position(ann, WIN), rank_by_position(ann, WIN)
    turned = [1, 2] if rankings.shown_ranks(first) == [2, 1] else [2, 1]
    rankings.revise_ranking(ann, first.pk, turned, idempotency_key=uuid4(), seconds=1.0)
    votes = votes_of(trial)
    assert [vote.comparison_id for vote in votes] == [first.comparison_id, second.comparison_id]
    assert [vote.ranks for vote in votes] == [LOSS, WIN]


def test_a_vote_that_was_taken_back_or_taken_out_does_not_count(start, ann, mona):
    trial = start(4)
    kept, discarded, returned, withdrawn = (rank_by_position(ann, WIN) for _ in range(4))
    ranking_undo.undo_last(ann)
    reviews.discard(mona, discarded.pk, reason="Clicked through.")
    reviews.return_ranking(mona, returned.pk, reason="Look again.")
    assert [vote.comparison_id for vote in votes_of(trial)] == [kept.comparison_id]
    rank_by_position(ann, LOSS)  # the returned one comes first
    assert [vote.ranks for vote in votes_of(trial)] == [WIN, LOSS]
    assert withdrawn.comparison_id not in {vote.comparison_id for vote in votes_of(trial)}


def test_a_ranking_that_is_discarded_leaves_its_place_to_another_annotator(start, ann, cole, mona):
    trial = start(1)
    reviews.discard(mona, rank_by_position(ann, WIN).pk, reason="Clicked through.")
    again = rank_by_position(cole, LOSS)
    assert (again.comparison.trial, again.revision) == (trial, 1)
    assert the_pair(trial).evidence.losses == 1


def test_an_adjudication_is_no_vote_and_leaves_those_that_it_overrules(start, ann, mona):
    trial = start(1)
    ranking = rank_by_position(ann, WIN)
    adjudicate(mona, ranking.comparison, LOSS)
    assert [(vote.annotator_id, vote.ranks) for vote in votes_of(trial)] == [(ann.user_id, WIN)]


def test_a_ranking_after_the_end_is_no_vote(start, ann):
    trial = start(3)
    rank_by_position(ann, WIN)
    held = leases.lease_next(ann)
    trials.end_trial(trial, decision="undecided")
    rankings.record_ranking(ann, held.pk, [1, 2], idempotency_key=uuid4(), seconds=1.0)
    assert Ranking.objects.count() == 2
    assert len(votes_of(trial)) == 1
    assert (evidence_of(trial).comparisons, evidence_of(trial).left) == (2, 1)


def test_votes_are_ordered_by_the_time_of_the_first_revision(start, ann):
    trial = start(3)
    made = [rank_by_position(ann, WIN) for _ in range(3)]
    Ranking.objects.filter(pk=made[2].pk).update(created_at=timezone.now() - timedelta(hours=1))
    order = [made[2].comparison_id, made[0].comparison_id, made[1].comparison_id]
    assert [vote.comparison_id for vote in votes_of(trial)] == order


def test_the_evidence_of_a_trial_runs_a_few_queries(start, ann, django_assert_num_queries):
    trial = start(2)
    rank_by_position(ann, WIN)
    with django_assert_num_queries(3):
        evidence_of(trial)


def test_exports_name_the_trial(start, ann, project):
    trial = start(1)
    rank_by_position(ann, WIN)
    (row,) = ranking_record.rankings(project)
    assert row["trial"] == trial.number == 1
    assert [line["trial"] for line in lines(project, "table")] == [1]
    assert [line["trial"] for line in lines(project, "trl")] == [1]
    assert preference_export.VERSION >= 4  # readers ask again, since lines have a new column


def test_the_list_of_trials_begins_with_the_newest(start, project):
    first = start(3)
    trials.end_trial(first, decision="undecided")
    second = trials.start_trial(project, [row.source for row in first.trial_sources.all()])
    assert list(trials_of(project)) == [second, first]
