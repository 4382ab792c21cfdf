"""Who met whom over which comparison, and on how many of its pairs they agreed: counted for all at once."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from datetime import date, datetime
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]

AGREE, OPPOSE, ONE_TIE, BOTH_TIE = range(4)  # the columns of `Meetings.counts`


class Said(NamedTuple):
    """A ranking, as far as agreement goes."""

    comparison_id: int
    annotator_id: int
    ranks: Sequence[int]
    created_at: datetime


class Meetings(NamedTuple):
    """M meetings: two people, one comparison that both ranked."""

    comparison: Integers  # [M] ids
    one: Integers  # [M] user ids, the lower one
    other: Integers  # [M] user ids
    monday: Integers  # [M] of the later ranking's week, as a proleptic ordinal
    counts: Floats  # [M, 4] pairs of completions: same one preferred, opposite ones, one of the two ties, both tie
    people: Integers  # [M] how many ranked the comparison

    def where(self, chosen: NDArray[np.bool_]) -> "Meetings":
        return _each(lambda column: column[chosen], self)


def joined(parts: Sequence[Meetings]) -> Meetings:
    return _each(lambda *columns: np.concatenate(columns), *parts)


def _each(act: Callable[..., Any], *parts: Meetings) -> Meetings:
    """What `act` makes of each column, or of the columns of one kind of several."""
    return Meetings(*map(act, *parts))


def meetings(said: Iterable[Said]) -> Meetings:
    """Each two people who ranked a comparison. Rows come in any order; a person ranks a comparison once."""
    by_size: dict[int, list[Said]] = defaultdict(list)
    for each in said:
        by_size[len(each.ranks)].append(each)
    parts = [_of_one_size(rows, size) for size, rows in sorted(by_size.items())]
    return joined([_none(), *parts])


def preferences(ranks: NDArray[np.int64]) -> NDArray[np.int8]:
    """[N, K] ranks → [N, K(K − 1)/2] signs: 1 where the first of a pair is better, −1 the second, 0 a tie.

    The pairs are those of `itertools.combinations`.
    """
    first, second = np.triu_indices(ranks.shape[1], k=1)
    return np.sign(ranks[:, second] - ranks[:, first]).astype(np.int8)


def _of_one_size(rows: list[Said], size: int) -> Meetings:
    rows.sort(key=lambda each: (each.comparison_id, each.annotator_id))
    comparison = np.array([each.comparison_id for each in rows], dtype=np.int64)
    annotator = np.array([each.annotator_id for each in rows], dtype=np.int64)
    monday = np.array([_monday(each.created_at.date()) for each in rows], dtype=np.int64)
    signs = preferences(np.array([each.ranks for each in rows], dtype=np.int64).reshape(len(rows), size))
    _, where, counted = np.unique(comparison, return_inverse=True, return_counts=True)
    people = counted[where]
    parts = [_none()]
    # Rows of a comparison lie together, so two people are some distance apart, less than there are people.
    for distance in range(1, int(people.max())):
        first = np.flatnonzero(comparison[:-distance] == comparison[distance:])
        second = first + distance
        parts.append(
            Meetings(
                comparison[first],
                annotator[first],
                annotator[second],
                np.maximum(monday[first], monday[second]),
                _counts(signs[first], signs[second]),
                people[first],
            )
        )
    return joined(parts)


def _counts(one: NDArray[np.int8], other: NDArray[np.int8]) -> Floats:
    """[M, P] signs of two people → [M, 4] counts."""
    product = one * other
    ties = (one == 0).astype(np.int8) + (other == 0)
    kinds = (product > 0, product < 0, ties == 1, ties == 2)
    return np.stack([kind.sum(axis=1) for kind in kinds], axis=1).astype(np.float64)


def _monday(day: date) -> int:
    return day.toordinal() - day.weekday()


def _none() -> Meetings:
    empty = np.zeros(0, dtype=np.int64)
    return Meetings(empty, empty, empty, empty, np.zeros((0, 4)), empty)
