"""Estimates of agreement with their intervals and sentences. This module does not import numpy."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from itertools import combinations

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

Z_95 = 1.959963984540054  # the normal distribution's 97.5 % quantile

PAIRWISE = _("Two people prefer the same completion in {value:.0%} of {pairs:,} pairs ({low:.0%} to {high:.0%}).")
NO_OVERLAP = _(
    "No comparison has been ranked by two people yet. Let two or more people rank at least a part of the comparisons."
)
ALL_TIES = _(
    "In every pair that two people ranked, at least one of them chose a tie: there is no preference to compare."
)
ALPHA = _("Krippendorff's alpha is {value:.2f} ({low:.2f} to {high:.2f}); 1 is agreement, 0 is chance.")
ALPHA_WITHOUT_INTERVAL = _("Krippendorff's alpha is {value:.2f}, from too few comparisons for an interval.")
NO_VARIATION = _("All rankings are ties: agreement is undefined.")


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval. `value` is None if it is undefined; `sentence` then states the reason."""

    value: float | None
    low: float | None
    high: float | None
    pairs: int  # pairs of completions, counted once for each two annotators who ranked them
    comparisons: int  # that contain these pairs
    template: str | Promise  # the sentence before translation and formatting

    @property
    def sentence(self) -> str:
        return str(self.template).format(value=self.value, low=self.low, high=self.high, pairs=self.pairs)


@dataclass(frozen=True)
class AgreementMeasures:
    """Two measures of the agreement within a group of annotators."""

    pairwise: Estimate  # share of equal preferences among pairs where both annotators have a preference
    alpha: Estimate  # Krippendorff's alpha, ordinal: a tie lies halfway between the two preferences


@dataclass(frozen=True)
class Agreement:
    """The agreement in a project."""

    overall: AgreementMeasures
    by_annotator: dict[int, AgreementMeasures]  # by user id: with all others
    by_two: dict[tuple[int, int], AgreementMeasures]  # by two user ids, the lower one first
    by_week: dict[date, AgreementMeasures]  # by the Monday of the later ranking's week

    @property
    def pairwise(self) -> Estimate:
        return self.overall.pairwise

    @property
    def alpha(self) -> Estimate:
        return self.overall.alpha


@dataclass(frozen=True)
class AnnotatorAgreement:
    """The agreement of one annotator with all others."""

    overall: AgreementMeasures
    by_week: dict[date, AgreementMeasures]


def wilson_interval(share: float, count: float) -> tuple[float, float]:
    """Return Wilson's 95 % score interval (1927) of a share seen in `count` trials, which need not be an integer.

    `training.learner.preferences.calibration.wilson_interval` is the same formula; `tests/learner/test_calibration.py`
    compares the two. Neither can import the other: the learner imports nothing of the web application, and no web
    process may load torch, which the learner imports.
    """
    centre = share + Z_95**2 / (2 * count)
    margin = Z_95 * math.sqrt(share * (1 - share) / count + Z_95**2 / (4 * count**2))
    scale = 1 + Z_95**2 / count
    # At a share of 0 or 1 one bound equals the share; rounding could otherwise exclude the share itself.
    return min(max(0.0, (centre - margin) / scale), share), max(min(1.0, (centre + margin) / scale), share)


def undefined(template: str | Promise) -> Estimate:
    """Return an estimate without a value."""
    return Estimate(None, None, None, 0, 0, template)


def count_equal_preferences(one: Sequence[int], other: Sequence[int]) -> tuple[int, int]:
    """Compare two rankings on the pairs where neither has a tie: return (equal preferences, such pairs)."""
    equal = total = 0
    for i, j in combinations(range(len(one)), 2):
        product = (one[i] - one[j]) * (other[i] - other[j])
        equal += product > 0
        total += product != 0
    return equal, total
