"""Simulated annotators, who rank by the hidden utility plus noise.

An annotator perceives a completion's utility plus a normal error (Thurstone 1927, "A law of comparative judgment", case
V), and ranks by perceived utility. Differences below a just noticeable difference are ties. The error grows with the
range of the utilities shown together (Gravetter and Lockhead 1973, "Criterial range as a frame of reference for
stimulus judgment"): people notice smaller differences among similar replies. The error depends on the annotator and the
text only, so an annotator ranks the same comparison twice in the same way.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from random import Random
from statistics import NormalDist
from typing import NamedTuple

from training.demo.grammar.dialogues import Turns
from training.demo.projects import SUPPORT, turns_of

NOISE = 0.4  # standard deviation of the error, as a share of the range; two annotators then agree on 3 pairs of 4
MIN_NOISE = 0.3  # points: standard deviation if all utilities are equal
NOTICEABLE = 0.2  # standard deviations: perceived utilities this close to the first of a rank share the rank


@dataclass(frozen=True)
class Annotator:
    """Simulated annotator; annotators differ by their seeds only."""

    seed: int
    noise: float = NOISE
    min_noise: float = MIN_NOISE
    utility: Callable[[str, Turns], float] = SUPPORT.utility

    def rank(self, message: str, replies: Sequence[str], dialogues: Sequence[Turns | None] = ()) -> list[int]:
        """Return a rank per reply: 1 is best, equal ranks are ties, without gaps (1, 1, 2).

        dialogues: the turns of each reply, None for a text; () if all are texts.
        """
        turns = map(turns_of, replies, dialogues or [None] * len(replies))
        utilities = [self.utility(message, answer) for answer in turns]
        deviation = max(self.min_noise, self.noise * (max(utilities) - min(utilities)))
        errors = [Random(f"{self.seed}\n{message}\n{reply}").gauss(0.0, deviation) for reply in replies]
        perceived = [value + error for value, error in zip(utilities, errors, strict=True)]
        return ranks(perceived, NOTICEABLE * deviation)


def choice_probabilities(
    first: float, second: float, noise: float = NOISE, min_noise: float = MIN_NOISE
) -> tuple[float, float]:
    """Return the probabilities that an annotator prefers the completion of the first utility, and of the second.

    Both errors are normal with deviation s, so the difference of the perceived utilities has deviation √2·s, and a
    difference of at most NOTICEABLE·s is a tie.
    """
    difference = first - second
    deviation = max(min_noise, noise * abs(difference))
    spread = NormalDist(0.0, math.sqrt(2) * deviation)
    edge = NOTICEABLE * deviation
    return spread.cdf(difference - edge), spread.cdf(-difference - edge)


def ranks(values: Sequence[float], noticeable: float) -> list[int]:
    """Return ranks of values, the largest first. Values within `noticeable` of the first of a rank share the rank."""
    result = [0] * len(values)
    rank, first = 0, float("inf")
    for index in sorted(range(len(values)), key=lambda i: -values[i]):
        if not rank or first - values[index] > noticeable:
            rank, first = rank + 1, values[index]
        result[index] = rank
    return result


class PairCount(NamedTuple):
    """Counts of pairs of texts that were ranked twice."""

    agreeing: int
    strict: int  # both rankings have a preference
    ties: int  # at least one ranking has a tie

    @property
    def agreement(self) -> float:
        """Return the share of strict pairs in the same order, as the reward program counts it."""
        return self.agreeing / self.strict


def compare(first: Sequence[Sequence[int]], second: Sequence[Sequence[int]]) -> PairCount:
    """Count agreeing, strict and tied pairs in two lists of rankings of the same texts."""
    agreeing = strict = ties = 0
    for one, other in zip(first, second, strict=True):
        for i, j in combinations(range(len(one)), 2):
            signs = _sign(one[i] - one[j]) * _sign(other[i] - other[j])
            ties += signs == 0
            strict += signs != 0
            agreeing += signs > 0
    return PairCount(agreeing, strict, ties)


def pair_accuracy(
    score: Callable[[int], float], truth: Callable[[int], float], groups: Sequence[Sequence[int]]
) -> float | None:
    """Return the share of pairs within groups that the scores put in the true order. Equal scores count half.

    Pairs with equal true values are left out; the result is None if there are no others.
    """
    right = total = 0.0
    for group in groups:
        for i, j in combinations(group, 2):
            if truth(i) != truth(j):
                total += 1
                right += (1 + _sign(score(i) - score(j)) * _sign(truth(i) - truth(j))) / 2
    return right / total if total else None


def _sign(number: float) -> int:
    return (number > 0) - (number < 0)
