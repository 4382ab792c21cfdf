"""Rankings as numpy arrays, grouped by the size of their comparison."""

from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from feedback.models import Lease
from feedback.quality.ranking_rows import RankingRow

EXTRA = str(Lease.Reason.DISAGREEMENT)  # comparing plain strings is faster than comparing with the enum member

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]
Booleans = NDArray[np.bool_]
Preferences = NDArray[np.int8]


class RankingArrays(NamedTuple):
    """N rankings of comparisons that have K completions and so P = K(K − 1)/2 pairs."""

    rows: list[RankingRow]  # N rows
    place: Integers  # [N] index of each row in the input
    comparison: Integers  # [N] ids
    annotator: Integers  # [N] user ids
    ranks: Integers  # [N, K]
    preferences: Preferences  # [N, P] see `preferences_of`
    gold_preferences: Preferences  # [N, P] of the gold ranking; 0 where there is none
    is_gold: Booleans  # [N]
    is_extra: Booleans  # [N] requested because others disagreed


def arrays_by_size(rows: Iterable[RankingRow]) -> list[RankingArrays]:
    """Return one set of arrays per size, the smallest size first. Rows keep their order within a size."""
    places: dict[int, list[int]] = defaultdict(list)
    groups: dict[int, list[RankingRow]] = defaultdict(list)
    for place, row in enumerate(rows):
        places[len(row.ranks)].append(place)
        groups[len(row.ranks)].append(row)
    return [_arrays(places[size], groups[size], size) for size in sorted(groups)]


def preferences_of(ranks: Integers) -> Preferences:
    """Return [N, K] ranks as [N, P] signs: 1 if the first completion of a pair is better, −1 if worse, 0 if they tie.

    The order of the pairs is that of `itertools.combinations`.
    """
    first, second = np.triu_indices(ranks.shape[1], k=1)
    return np.sign(ranks[:, second] - ranks[:, first]).astype(np.int8)


def _arrays(places: list[int], rows: list[RankingRow], size: int) -> RankingArrays:
    ranks = np.array([row.ranks for row in rows], dtype=np.int64)
    all_tied = [1] * size  # stands for an unknown gold ranking: it has no preferences
    gold_ranks = np.array([row.gold_ranks or all_tied for row in rows], dtype=np.int64)
    return RankingArrays(
        rows,
        np.array(places, dtype=np.int64),
        np.array([row.comparison_id for row in rows], dtype=np.int64),
        np.array([row.annotator_id for row in rows], dtype=np.int64),
        ranks,
        preferences_of(ranks),
        preferences_of(gold_ranks),
        np.array([row.gold_ranks is not None for row in rows], dtype=np.bool_),
        np.array([row.reason == EXTRA for row in rows], dtype=np.bool_),
    )
