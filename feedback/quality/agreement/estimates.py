"""What agreement is told as: numbers with intervals and sentences. Without numpy, which most processes never need."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from itertools import combinations

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

Z = 1.959964  # the normal distribution's 97.5 % point

OF_TWO_PEOPLE = _("Two people prefer the same completion in {value:.0%} of {pairs:,} pairs ({low:.0%} to {high:.0%}).")
NOBODY_TWICE = _(
    "No comparison has been ranked by two people yet: let at least a part of the comparisons be ranked by two or more."
)
ALL_TIES = _("Wherever two people met, one of them called it a tie: there is no preference to agree about yet.")
ALPHA = _("Krippendorff’s alpha is {value:.2f} ({low:.2f} to {high:.2f}); 1 is agreement, 0 is chance.")
ALPHA_ALONE = _("Krippendorff’s alpha is {value:.2f}, from too few comparisons for an interval.")
NO_DIFFERENCE = _("Everybody called everything a tie: without any difference there is nothing to agree about.")


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval; `value` is None when it is undefined, and `sentence` says why."""

    value: float | None
    low: float | None
    high: float | None
    pairs: int  # pairs of completions, counted once for each two people who ranked them
    comparisons: int  # in which they were seen
    told: str | Promise  # the sentence, before its numbers are put in and its language is known

    @property
    def sentence(self) -> str:
        return str(self.told).format(value=self.value, low=self.low, high=self.high, pairs=self.pairs)


@dataclass(frozen=True)
class Agreed:
    """How far some people agree, in two ways."""

    pairwise: Estimate  # the share of pairs on which two who both have a preference have the same
    alpha: Estimate  # Krippendorff's alpha, ordinal: ties count as halfway between two opposite preferences


@dataclass(frozen=True)
class Agreement:
    """All that is known of a project's agreement."""

    overall: Agreed
    by_annotator: dict[int, Agreed]  # by user id: with all others
    by_two: dict[tuple[int, int], Agreed]  # by two user ids, the lower one first
    by_week: dict[date, Agreed]  # by the Monday of the later ranking's week

    @property
    def pairwise(self) -> Estimate:
        return self.overall.pairwise

    @property
    def alpha(self) -> Estimate:
        return self.overall.alpha


@dataclass(frozen=True)
class OfAnnotator:
    """One annotator's agreement with all others."""

    overall: Agreed
    by_week: dict[date, Agreed]


def wilson(value: float, n: float) -> tuple[float, float]:
    """Wilson's 95 % score interval of a share seen in n trials."""
    centre = value + Z * Z / (2 * n)
    margin = Z * math.sqrt(value * (1 - value) / n + Z * Z / (4 * n * n))
    scale = 1 + Z * Z / n
    # At a share of 0 or 1 the bound is the share itself, from which rounding must not keep it.
    return min(max(0.0, (centre - margin) / scale), value), max(min(1.0, (centre + margin) / scale), value)


def undefined(told: str | Promise) -> Estimate:
    return Estimate(None, None, None, 0, 0, told)


def same_preference(one: Sequence[int], other: Sequence[int]) -> tuple[int, int]:
    """Of the pairs in which both rankings prefer one completion: (how many prefer the same one, how many)."""
    same = all_ = 0
    for i, j in combinations(range(len(one)), 2):
        product = (one[i] - one[j]) * (other[i] - other[j])
        same += product > 0
        all_ += product != 0
    return same, all_
