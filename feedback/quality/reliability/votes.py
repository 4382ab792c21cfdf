"""Rankings as votes on pairs of completions, in arrays; and votes that are alike put together."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from feedback.quality.agreement.pairwise import preferences
from feedback.quality.reliability.judged import Judged

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]


class Votes(NamedTuple):
    """V preferences of one completion of a pair over the other. Ties are no votes."""

    comparison: Integers  # [V] ids
    pair: Integers  # [V] ids of pairs, which belong to one comparison
    annotator: Integers  # [V] indices into `annotators`
    sign: Floats  # [V] 1: the first is better, −1: the second
    weight: Floats  # [V] what a vote counts: 2/K, so that a ranking of K completions counts as the K − 1 it decides
    truth: Floats  # [V] the sign of the gold ranking; 0 where nothing is known
    annotators: list[int]  # user ids, of whoever made a ranking


class Alike(NamedTuple):
    """N kinds of pairs judged by m people each: by these people, to this effect or just the opposite one.

    Which completion stands first means nothing, so a pair and its mirror image are of one kind.
    """

    people: Integers  # [N, m] indices of annotators
    signs: Floats  # [N, m] the first person's is 1
    weight: Floats  # [N] the sum of the pairs' weights
    kind: Integers  # [U] of each pair
    comparison: Integers  # [U] of each pair
    pair_weight: Floats  # [U]


def votes_of(judged: Iterable[Judged]) -> Votes:
    """The votes of rankings, of which a person has made at most one of each comparison; rows in any order."""
    by_size: dict[int, list[Judged]] = defaultdict(list)
    for each in judged:
        by_size[len(each.ranks)].append(each)
    annotators = sorted({each.annotator_id for rows in by_size.values() for each in rows})
    parts = [_of_one_size(rows, size, annotators) for size, rows in sorted(by_size.items())]
    empty, nothing = np.zeros(0, dtype=np.int64), np.zeros(0)
    columns: list[Any] = [np.concatenate(column) for column in zip((empty,) * 3 + (nothing,) * 3, *parts, strict=True)]
    return Votes(*columns, annotators)  # type: ignore[call-arg]


def _of_one_size(rows: list[Judged], size: int, annotators: list[int]) -> tuple[NDArray, ...]:
    signs = preferences(np.array([each.ranks for each in rows]))
    known = [each.gold_ranks or [1] * size for each in rows]
    truth = preferences(np.array(known))
    is_vote = (signs != 0) & ((truth != 0) | np.array([each.gold_ranks is None for each in rows])[:, None])
    row, place = np.nonzero(is_vote)
    comparison = np.array([each.comparison_id for each in rows], dtype=np.int64)[row]
    annotator = np.searchsorted(annotators, [each.annotator_id for each in rows])[row]
    weight = np.full(len(row), 2 / size)
    # 9 completions make 36 pairs.
    return comparison, comparison * 36 + place, annotator, signs[row, place], weight, truth[row, place]


def alike(votes: Votes) -> list[Alike]:
    """The pairs that several people voted on, without gold, by how many did. Others say nothing of reliability."""
    real = np.flatnonzero(votes.truth == 0)
    order = real[np.lexsort((votes.annotator[real], votes.pair[real]))]
    _, starts, people = np.unique(votes.pair[order], return_index=True, return_counts=True)
    return [_alike(votes, order, starts[people == m], int(m)) for m in np.unique(people) if m > 1]


def _alike(votes: Votes, order: Integers, starts: Integers, m: int) -> Alike:
    of_pair = order[starts[:, None] + np.arange(m)]  # [U, m] rows of votes
    people, signs = votes.annotator[of_pair], votes.sign[of_pair]
    signs = signs * signs[:, :1]
    kind = np.zeros(len(starts), dtype=np.int64)
    for column in (2 * people + (signs > 0)).T:  # number the kinds a person at a time: much faster than whole rows
        _, example, kind = np.unique(kind * 2 * len(votes.annotators) + column, return_index=True, return_inverse=True)
    weight = votes.weight[of_pair[:, 0]]
    summed = np.bincount(kind, weight).astype(np.float64)
    return Alike(people[example], signs[example], summed, kind, votes.comparison[of_pair[:, 0]], weight)
