"""Rankings as votes on pairs of completions, and votes grouped by pattern, as arrays."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from feedback.quality.ranking_arrays import Floats, Integers, RankingArrays, arrays_by_size
from feedback.quality.ranking_rows import RankingRow

MAX_PAIRS = 36  # of one comparison, which has at most 9 completions


class Votes(NamedTuple):
    """V preferences for one completion of a pair. Ties are not votes."""

    comparison: Integers  # [V] ids
    pair: Integers  # [V] ids of pairs; a pair belongs to one comparison
    annotator: Integers  # [V] indices into `annotators`
    sign: Floats  # [V] 1: the first is better, −1: the second
    weight: Floats  # [V] 2/K, so that a ranking of K completions counts as the K − 1 choices it takes
    truth: Floats  # [V] the sign of the gold ranking; 0 if there is none
    annotators: list[int]  # user ids of everybody who made a ranking


class VotePatterns(NamedTuple):
    """N patterns of votes on a pair by m annotators: who voted, and which of them voted the same.

    The order of the two completions has no meaning, so a pair and its mirror image have the same pattern.
    """

    people: Integers  # [N, m] indices of annotators
    signs: Floats  # [N, m] the first annotator's is 1
    weight: Floats  # [N] the sum of the pairs' weights
    pattern: Integers  # [U] index of each pair's pattern
    comparison: Integers  # [U] of each pair
    pair_weight: Floats  # [U]


def votes_of(rankings: Iterable[RankingRow]) -> Votes:
    """Return the votes of rankings, in any order; an annotator made at most one ranking per comparison."""
    rows = list(rankings)
    annotators = sorted({row.annotator_id for row in rows})
    parts = [_votes_of_size(part, annotators) for part in arrays_by_size(rows)]
    empty, nothing = np.zeros(0, dtype=np.int64), np.zeros(0)
    columns: list[Any] = [np.concatenate(column) for column in zip((empty,) * 3 + (nothing,) * 3, *parts, strict=True)]
    return Votes(*columns, annotators)  # type: ignore[call-arg]


def _votes_of_size(rankings: RankingArrays, annotators: list[int]) -> tuple[Any, ...]:
    signs, truth = rankings.preferences, rankings.gold_preferences
    is_vote = (signs != 0) & ((truth != 0) | ~rankings.is_gold[:, None])
    row, pair = np.nonzero(is_vote)
    comparison = rankings.comparison[row]
    annotator = np.searchsorted(annotators, rankings.annotator)[row]
    weight = np.full(len(row), 2 / rankings.ranks.shape[1])
    return comparison, comparison * MAX_PAIRS + pair, annotator, signs[row, pair], weight, truth[row, pair]


def vote_patterns(votes: Votes) -> list[VotePatterns]:
    """Group the pairs without gold by pattern, one result per number of voters m ≥ 2.

    Pairs with a single vote are left out: they carry no information about reliability.
    """
    without_gold = np.flatnonzero(votes.truth == 0)
    order = without_gold[np.lexsort((votes.annotator[without_gold], votes.pair[without_gold]))]
    _, starts, voters = np.unique(votes.pair[order], return_index=True, return_counts=True)
    return [_patterns(votes, order, starts[voters == m], int(m)) for m in np.unique(voters) if m > 1]


def _patterns(votes: Votes, order: Integers, starts: Integers, m: int) -> VotePatterns:
    of_pair = order[starts[:, None] + np.arange(m)]  # [U, m] rows of votes
    people, signs = votes.annotator[of_pair], votes.sign[of_pair]
    signs = signs * signs[:, :1]
    pattern = np.zeros(len(starts), dtype=np.int64)
    # Number the patterns one annotator at a time: np.unique over whole rows is much slower.
    for column in (2 * people + (signs > 0)).T:
        keys = pattern * 2 * len(votes.annotators) + column
        _, example, pattern = np.unique(keys, return_index=True, return_inverse=True)
    weight = votes.weight[of_pair[:, 0]]
    summed = np.bincount(pattern, weight).astype(np.float64)
    return VotePatterns(people[example], signs[example], summed, pattern, votes.comparison[of_pair[:, 0]], weight)
