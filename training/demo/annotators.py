"""Simulated annotators: people who see the hidden utility through noise, each through their own.

An annotator perceives a completion's utility plus a normal error (Thurstone 1927, «A law of comparative judgment», case
V), and ranks by what they perceive; what lies closer together than a just noticeable difference is a tie. The error
grows with the range of what is shown together, as people's does (Gravetter and Lockhead 1973, «Criterial range as a
frame of reference for stimulus judgment»): among replies of one kind they notice finer things than among good and bad
ones. An error belongs to the annotator and the text, so whoever judges the same comparison twice judges it the same.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from random import Random
from typing import NamedTuple

from training.demo.utility import utility

NOISE = 0.4  # standard deviation of the error, as a share of the range; so set that two agree on three pairs in four
LEAST_NOISE = 0.3  # points: standard deviation when what is shown is all alike
NOTICEABLE = 0.2  # perceived utilities within so many standard deviations of a rank's first share the rank


@dataclass(frozen=True)
class Annotator:
    """Somebody who ranks; the seed is all that tells one from another."""

    seed: int
    noise: float = NOISE
    least_noise: float = LEAST_NOISE

    def rank(self, message: str, replies: Sequence[str]) -> list[int]:
        """A rank for each reply, 1 = best, equal = tie, without gaps (1, 1, 2)."""
        utilities = [utility(message, reply) for reply in replies]
        deviation = max(self.least_noise, self.noise * (max(utilities) - min(utilities)))
        errors = [Random(f"{self.seed}\n{message}\n{reply}").gauss(0.0, deviation) for reply in replies]
        perceived = [value + error for value, error in zip(utilities, errors, strict=True)]
        return ranks(perceived, NOTICEABLE * deviation)


def ranks(values: Sequence[float], noticeable: float) -> list[int]:
    """Ranks of values, the largest first; one within `noticeable` of the first of a rank shares that rank."""
    given = [0] * len(values)
    rank, first = 0, float("inf")
    for index in sorted(range(len(values)), key=lambda i: -values[i]):
        if not rank or first - values[index] > noticeable:
            rank, first = rank + 1, values[index]
        given[index] = rank
    return given


class PairCount(NamedTuple):
    """Of pairs of texts judged twice."""

    agreeing: int
    strict: int  # both judges had a preference
    ties: int  # at least one of them had none

    @property
    def agreement(self) -> float:
        """Share of strict pairs in the same order, as the reward program counts it."""
        return self.agreeing / self.strict


def compare(first: Sequence[Sequence[int]], second: Sequence[Sequence[int]]) -> PairCount:
    """How far two lists of rankings of the same texts agree."""
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
    """Share of pairs within groups, of different true values, that the scores put in the true order; a draw is half.

    None where no pair differs.
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
