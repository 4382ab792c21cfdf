"""Passes over comparisons: each shuffled again, and divided evenly into steps of about as many rankings."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from training.learner.preferences.ranking_data import Comparison
from training.learner.text.messages import shuffled


class TrainingPass(NamedTuple):
    """One pass over all comparisons that have a weight."""

    number: int
    order: list[Comparison]
    steps: list[slice]  # of `order`


def training_passes(
    comparisons: Sequence[Comparison], batch_rankings: int, seed: int, numbers: Iterable[int]
) -> Iterator[TrainingPass]:
    """Yield the passes of these numbers; a step has about `batch_rankings` rankings, and at least one comparison."""
    useful = [comparison for comparison in comparisons if total_weight([comparison]) > 0]
    parts = min(max(round(rankings_in(useful) / batch_rankings), 1), len(useful))
    cuts = [len(useful) * part // parts for part in range(parts + 1)]
    for number in numbers:
        order = [useful[i] for i in shuffled(len(useful), seed, number)]
        yield TrainingPass(number, order, [slice(*cut) for cut in itertools.pairwise(cuts)])


def total_weight(comparisons: Iterable[Comparison]) -> float:
    return sum(ranking.weight for comparison in comparisons for ranking in comparison.rankings)


def rankings_in(comparisons: Iterable[Comparison]) -> int:
    return sum(len(comparison.rankings) for comparison in comparisons)
