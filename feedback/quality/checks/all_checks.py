"""The checks of all annotators of a project."""

from collections.abc import Sequence

import numpy as np

from feedback.models import Lease, Project, Ranking
from feedback.quality.checks import guessing
from feedback.quality.checks.answers import (
    Answers,
    answers_to_gold,
    answers_to_others,
    careful_probabilities,
    in_time_order,
)
from feedback.quality.checks.results import TOO_FEW, CheckResult, CheckResults
from feedback.quality.checks.single_checks import chance_agreement, position_bias, speed
from feedback.quality.ranking_arrays import Integers, RankingArrays, arrays_by_size
from feedback.quality.ranking_rows import RankingRow, read_rankings

UNTIMED = CheckResult(None, 0, False, TOO_FEW)  # nobody measured the time


def check_project(project: Project) -> dict[int, CheckResults]:
    """Return the results by user id, of everybody with a live ranking in the project. Runs one query."""
    live = Ranking.objects.live_in(project).order_by("created_at", "id")
    return check_rankings(read_rankings(live), project.qualification_percent / 100)


def check_rankings(rows: Sequence[RankingRow], gold_pass_mark: float) -> dict[int, CheckResults]:
    """Return the results by user id, of rankings in the order of time.

    gold_pass_mark: the share of gold preferences that the project asks annotators to share.
    """
    rankings = arrays_by_size(rows)
    annotator = np.array([row.annotator_id for row in rows], dtype=np.int64)
    careful_on_gold = guessing.careful_on_gold(gold_pass_mark)
    to_gold = in_time_order(*map(answers_to_gold, rankings))
    clickers = random_clickers(annotator, rankings, to_gold, careful_on_gold)
    failures = _chance_agreements(annotator, to_gold, careful_on_gold)
    biases = position_biases(annotator, rankings)
    speeds = _speeds([row for row in rows if row.seconds > 0 or row.reason != Lease.Reason.IMPORTED])
    return {
        user_id: CheckResults(clickers[user_id], failures[user_id], biases[user_id], speeds.get(user_id, UNTIMED))
        for user_id in np.unique(annotator).tolist()
    }


def _speeds(timed: Sequence[RankingRow]) -> dict[int, CheckResult]:
    """Check the pace of the annotators of rankings whose time is known: files often name none."""
    if not timed:
        return {}
    annotator = np.array([row.annotator_id for row in timed], dtype=np.int64)
    sizes = np.array([len(row.ranks) for row in timed], dtype=np.int64)
    return speed(annotator, sizes, np.array([row.seconds for row in timed], dtype=np.float64))


def random_clickers(
    annotator: Integers, rankings: Sequence[RankingArrays], to_gold: Answers, careful_on_gold: float
) -> dict[int, CheckResult]:
    """Test each annotator's agreement with others and gold.

    Nobody is compared with a flagged annotator: after a flag the other annotators are tested again without them.
    """
    remaining = np.unique(annotator)
    results: dict[int, CheckResult] = {}
    while True:
        flagged = frozenset(user_id for user_id, result in results.items() if result.is_flagged)
        remaining = np.array([user_id for user_id in remaining.tolist() if user_id not in flagged], dtype=np.int64)
        answers = in_time_order(to_gold, *(answers_to_others(part, flagged) for part in rankings))
        latest = _chance_agreements(remaining, answers, careful_on_gold)
        results |= latest
        if not any(result.is_flagged for result in latest.values()):
            return results


def position_biases(annotator: Integers, rankings: Sequence[RankingArrays]) -> dict[int, CheckResult]:
    """Test each annotator's rankings with a single best completion, in the order of time."""
    size = np.zeros(len(annotator), dtype=np.int64)
    is_win, has_single_best = np.zeros(len(annotator), dtype=np.bool_), np.zeros(len(annotator), dtype=np.bool_)
    for part in rankings:
        shown_first = np.array([row.display_order[0] for row in part.rows], dtype=np.int64)
        size[part.place] = part.ranks.shape[1]
        is_win[part.place] = part.ranks[np.arange(len(part.ranks)), shown_first] == 1
        has_single_best[part.place] = (part.ranks == 1).sum(axis=1) == 1
    results = {}
    for user_id in np.unique(annotator).tolist():
        used = np.flatnonzero((annotator == user_id) & has_single_best)
        results[user_id] = position_bias(is_win[used], size[used])
    return results


def _chance_agreements(annotator: Integers, answers: Answers, careful_on_gold: float) -> dict[int, CheckResult]:
    """Test the answers of each of these annotators."""
    probabilities = careful_probabilities(answers, careful_on_gold)
    results = {}
    for user_id in np.unique(annotator).tolist():
        of_user = np.flatnonzero(answers.annotator == user_id)
        pairs = zip(answers.is_same[of_user].tolist(), probabilities[of_user].tolist(), strict=True)
        results[user_id] = chance_agreement(pairs)
    return results
