"""Answers: whether annotators prefer what another annotator, or gold, prefers on one pair of each comparison."""

from typing import Any, NamedTuple

import numpy as np

from feedback.quality.checks.guessing import GOLD_LIMITS
from feedback.quality.ranking_arrays import Booleans, Floats, Integers, RankingArrays

MIN_RELATIVE_AGREEMENT = 0.75  # below 75 % of the peers' above-chance agreement an annotator is suspect
PRIOR_ANSWERS = 20  # answers that the prior of an annotator's agreement is worth
GOLD = -1  # partner of an answer to gold


class Answers(NamedTuple):
    """M answers. An annotator gives at most one per comparison, so that their answers are independent."""

    place: Integers  # [M] index of the ranking that completed the answer
    annotator: Integers  # [M] user ids
    partner: Integers  # [M] user ids, or GOLD
    is_same: Booleans  # [M] whether the annotator prefers what the partner prefers

    def select(self, mask: Booleans) -> "Answers":
        return Answers(self.place[mask], self.annotator[mask], self.partner[mask], self.is_same[mask])


def in_time_order(*parts: Answers) -> Answers:
    """Concatenate the answers and sort them by `place`."""
    empty = np.zeros(0, dtype=np.int64)
    none = Answers(empty, empty, empty, np.zeros(0, dtype=np.bool_))
    columns: list[Any] = [np.concatenate(column) for column in zip(none, *parts, strict=True)]
    order = np.argsort(columns[0], kind="stable")
    return Answers(*(column[order] for column in columns))


def answers_to_gold(rankings: RankingArrays) -> Answers:
    """Compare each ranking of gold with its right ranking, on the first pair that the right ranking decides."""
    rows = np.flatnonzero(rankings.gold_preferences.any(axis=1))
    pair = _first_true(rankings.gold_preferences[rows] != 0)
    is_same = rankings.preferences[rows, pair] == rankings.gold_preferences[rows, pair]
    return Answers(rankings.place[rows], rankings.annotator[rows], np.full(len(rows), GOLD), is_same)


def answers_to_others(rankings: RankingArrays, excluded: frozenset[int] = frozenset()) -> Answers:
    """Compare each ranking with the first one of its comparison, on the first pair that both decide.

    The first ranking itself is compared with the second. Left out: gold; rankings of the `excluded` annotators; and
    extra rankings, because agreement with one side of a disagreement is no evidence of care.
    """
    is_excluded = np.isin(rankings.annotator, list(excluded))
    used = np.flatnonzero(~rankings.is_gold & ~rankings.is_extra & ~is_excluded)
    used = used[np.argsort(rankings.comparison[used], kind="stable")]
    first, number = _first_of_comparison(rankings.comparison[used])
    later = np.flatnonzero(number > 0)
    ranking, earliest = used[later], used[first[later]]
    product = rankings.preferences[ranking] * rankings.preferences[earliest]
    is_decided = (product != 0).any(axis=1)
    is_same = product[np.arange(len(later)), _first_true(product != 0)] > 0
    place, one, other = rankings.place[ranking], rankings.annotator[ranking], rankings.annotator[earliest]
    answers = Answers(place, one, other, is_same)
    reverse = Answers(place, other, one, is_same)  # the answer of the first to the second
    return in_time_order(answers.select(is_decided), reverse.select(is_decided & (number[later] == 1)))


def careful_probabilities(answers: Answers, careful_on_gold: float) -> Floats:
    """Return [M] the least probability of `is_same` for a careful annotator in each answer's place.

    With gold it is `careful_on_gold`. With a partner, a careful annotator agrees as often as the partner's other
    partners do; at least MIN_RELATIVE_AGREEMENT of what that is above chance is expected. So an annotator who is paired
    with a random clicker is not blamed, and of two annotators who only share comparisons with each other neither is:
    the data do not show which of them is careless.
    """
    is_gold = answers.partner == GOLD
    probabilities = np.full(len(is_gold), min(careful_on_gold, GOLD_LIMITS[1]))
    others = answers.select(~is_gold)
    peers = _agreement_without(others)
    probabilities[~is_gold] = np.minimum(0.5 + MIN_RELATIVE_AGREEMENT * (peers - 0.5), GOLD_LIMITS[1])
    return probabilities


def _agreement_without(answers: Answers) -> Floats:
    """Return [M] how often each answer's partner agrees with annotators other than the one who gave the answer.

    The share is shrunk towards that of all annotators by PRIOR_ANSWERS, and the latter likewise towards ½.
    """
    ids = np.unique(np.concatenate([answers.annotator, answers.partner]))
    annotator, partner = np.searchsorted(ids, answers.annotator), np.searchsorted(ids, answers.partner)
    same = _count_between(annotator, partner, answers.is_same, len(ids))
    total = _count_between(annotator, partner, np.ones(len(annotator)), len(ids))
    usual = _shrunk(_without_either(same), _without_either(total), 0.5)  # [A] by who gave the answer
    same_elsewhere = same.sum(axis=1)[partner] - same[partner, annotator]
    total_elsewhere = total.sum(axis=1)[partner] - total[partner, annotator]
    return _shrunk(same_elsewhere, total_elsewhere, usual[annotator])


def _shrunk(same: Floats, total: Floats, prior: Floats | float) -> Floats:
    return (same + PRIOR_ANSWERS * prior) / (total + PRIOR_ANSWERS)


def _count_between(annotator: Integers, partner: Integers, weights: Floats | Booleans, count: int) -> Floats:
    """Return [A, A] sums of the weights by annotator and partner."""
    sums = np.bincount(annotator * count + partner, weights, count * count)
    return sums.astype(np.float64).reshape(count, count)


def _without_either(between: Floats) -> Floats:
    """Return [A] the sum over all answers that each annotator neither gave nor is the partner of."""
    return between.sum() - between.sum(axis=1) - between.sum(axis=0)


def _first_of_comparison(comparison: Integers) -> tuple[Integers, Integers]:
    """Return the index of the first row with the same id for sorted ids [N], and each row's number from 0 within it."""
    places = np.arange(len(comparison))
    is_start = np.ones(len(comparison), dtype=np.bool_)
    is_start[1:] = comparison[1:] != comparison[:-1]
    first = np.maximum.accumulate(np.where(is_start, places, 0))
    return first, places - first


def _first_true(mask: Booleans) -> Integers:
    """Return [N] the index of the first true column of each row; 0 if there is none."""
    return mask.argmax(axis=1)
