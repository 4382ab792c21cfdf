"""For every two annotators who ranked the same comparison: counts of agreeing, opposed and tied pairs (vectorised)."""

from collections.abc import Callable, Iterable, Sequence
from datetime import date
from typing import Any, NamedTuple

import numpy as np

from feedback.quality.ranking_arrays import Booleans, Floats, Integers, Preferences, RankingArrays, arrays_by_size
from feedback.quality.ranking_rows import RankingRow

AGREE, OPPOSE, ONE_TIE, BOTH_TIE = range(4)  # the columns of `PairCounts.counts`


class PairCounts(NamedTuple):
    """M rows, each of two annotators and one comparison that both ranked."""

    comparison: Integers  # [M] ids
    one: Integers  # [M] user ids, the lower one
    other: Integers  # [M] user ids
    monday: Integers  # [M] of the later ranking's week, as a proleptic ordinal
    counts: Floats  # [M, 4] pairs of completions: same one preferred, opposite ones, one of the two ties, both tie
    annotators: Integers  # [M] how many ranked the comparison

    def select(self, mask: Booleans) -> "PairCounts":
        return _map_columns(lambda column: column[mask], self)


def concatenate(parts: Sequence[PairCounts]) -> PairCounts:
    return _map_columns(lambda *columns: np.concatenate(columns), *parts)


def count_pairs(rows: Iterable[RankingRow]) -> PairCounts:
    """Return a row for every two annotators who ranked the same comparison. The input may be in any order."""
    return concatenate([_empty(), *map(_count_pairs_of_size, arrays_by_size(rows))])


def _count_pairs_of_size(rankings: RankingArrays) -> PairCounts:
    order = np.lexsort((rankings.annotator, rankings.comparison))
    comparison, annotator = rankings.comparison[order], rankings.annotator[order]
    preferences = rankings.preferences[order]
    monday = np.array([_monday(row.created_at.date()) for row in rankings.rows], dtype=np.int64)[order]
    _, group, group_sizes = np.unique(comparison, return_inverse=True, return_counts=True)
    annotators = group_sizes[group]
    parts = [_empty()]
    # The rows of a comparison are adjacent, so two of them are at most (annotators − 1) rows apart.
    for distance in range(1, int(annotators.max())):
        first = np.flatnonzero(comparison[:-distance] == comparison[distance:])
        second = first + distance
        parts.append(
            PairCounts(
                comparison[first],
                annotator[first],
                annotator[second],
                np.maximum(monday[first], monday[second]),
                _count_kinds(preferences[first], preferences[second]),
                annotators[first],
            )
        )
    return concatenate(parts)


def _count_kinds(one: Preferences, other: Preferences) -> Floats:
    """Count the pairs of completions by kind: [M, P] preferences of two annotators → [M, 4]."""
    product = one * other
    ties = (one == 0).astype(np.int8) + (other == 0)
    kinds = (product > 0, product < 0, ties == 1, ties == 2)
    return np.stack([kind.sum(axis=1) for kind in kinds], axis=1).astype(np.float64)


def _map_columns(function: Callable[..., Any], *parts: PairCounts) -> PairCounts:
    """Apply the function to each column of one part, or to the same column of several parts."""
    return PairCounts(*map(function, *parts))


def _monday(day: date) -> int:
    return day.toordinal() - day.weekday()


def _empty() -> PairCounts:
    empty = np.zeros(0, dtype=np.int64)
    return PairCounts(empty, empty, empty, empty, np.zeros((0, 4)), empty)
