"""Accuracy and calibration of a reward model: pure functions of score differences on pairs.

A difference is the model's log-odds of the annotator's choice: sigmoid(difference) is its probability. Without a tie
model it is the raw score of the preferred completion minus that of the other. Pairs of one prompt are not independent,
so intervals use the number of prompts.
"""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import softplus

from training.learner.runtime.intervals import Z_95, Interval


def hits(differences: Tensor) -> Tensor:
    """Return 1 where the preferred completion scores higher, ½ where both score the same, else 0; [P]."""
    return ((differences.sign() + 1) / 2).double()


def accuracy_interval(right: Tensor, cluster: Tensor) -> Interval:
    """Return the mean of `right` [P] (hits) with Wilson's interval (1927) for the effective number of pairs.

    cluster [P]: the prompt of each pair. The effective number is P divided by Kish's design effect, with the variance
    of the mean estimated between clusters (ratio estimator); it is at most P. If that variance is 0 (all right, all
    wrong, one prompt) it is the number of prompts.
    """
    count = len(right)
    share = float(right.mean())
    names, which = cluster.unique(return_inverse=True)
    residuals = torch.zeros(len(names), dtype=torch.float64).index_add(0, which, right - share)
    variance = float(residuals.square().sum()) * len(names) / max(len(names) - 1, 1) / count**2
    effective = float(len(names))
    if variance > 0 and 0 < share < 1 and len(names) > 1:
        effective = min(share * (1 - share) / variance, count)
    return wilson_interval(share, effective)


def wilson_interval(share: float, count: float) -> Interval:
    """Return Wilson's 95 % score interval (1927) of a share seen in `count` trials, which need not be an integer.

    `feedback.quality.agreement.estimates.wilson_interval` is the same formula; `tests/learner/test_calibration.py`
    compares the two. The learner imports nothing of the web application, so it cannot use that one.
    """
    centre = (share + Z_95**2 / (2 * count)) / (1 + Z_95**2 / count)
    half = Z_95 / (1 + Z_95**2 / count) * math.sqrt(share * (1 - share) / count + Z_95**2 / (4 * count**2))
    # At a share of 0 or 1 the bound is the share itself; rounding could move it past the share.
    return Interval(share, min(max(centre - half, 0.0), share), max(min(centre + half, 1.0), share))


def brier_score(differences: Tensor) -> float:
    """Return the mean of (1 − sigmoid(difference))² (Brier 1950, one of two outcomes); ¼ for constant ½."""
    return float((-differences.double()).sigmoid().square().mean())


def expected_calibration_error(differences: Tensor, bins: int = 10) -> float:
    """Return the mean distance of confidence and accuracy over bins of equal width in [½, 1] (Guo et al. 2017, eq. 3).

    Confidence is the model's probability of the completion that it prefers.
    """
    confidence = differences.double().abs().sigmoid()
    which = ((confidence - 0.5) * 2 * bins).long().clamp(max=bins - 1)
    gap = torch.zeros(bins, dtype=torch.float64).index_add(0, which, confidence - hits(differences))
    return float(gap.abs().sum() / len(differences))


def fitted_temperature(differences: Tensor, low: float = 0.01, high: float = 100.0) -> float:
    """Return the T of maximum likelihood of sigmoid(difference / T) (Guo et al. 2017, §4.2); above 1: overconfident.

    Σ softplus(−a·d) is convex in a = 1/T, so bisection finds the zero of its slope. [low, high] bounds T if there is no
    zero (every pair right, or half of them wrong).
    """
    d = differences.double()
    cold, hot = 1 / low, 1 / high
    for _ in range(60):
        middle = math.sqrt(cold * hot)
        slope = float((-d * (-middle * d).sigmoid()).sum())
        cold, hot = (middle, hot) if slope > 0 else (cold, middle)
    return 1 / math.sqrt(cold * hot)


def log_loss(differences: Tensor) -> float:
    """Return the mean of −log sigmoid(difference), nats."""
    return float(softplus(-differences.double()).mean())


class Agreement(NamedTuple):
    """Share of equal judgements of two annotators who both preferred one of the same two completions."""

    share: float | None  # None: no two annotators judged the same pair
    judgements: int  # pairs of annotators, over all pairs of completions


def annotator_agreement(votes: Sequence[Sequence[tuple[str, bool]]]) -> Agreement:
    """Return the agreement of all pairs of annotators.

    votes: for each pair of completions, the annotators and whether they preferred the first. Ties are not votes.
    """
    same = total = 0
    for ballots in votes:
        for (annotator, first), (other, other_first) in itertools.combinations(ballots, 2):
            if annotator != other:
                total += 1
                same += first == other_first
    return Agreement(same / total if total else None, total)


def best_accuracy(agreement: float | None) -> float | None:
    """Return the highest accuracy on single judgements that any model can have, given the annotators' agreement.

    If a judgement is the majority's with probability q, two agree with probability q² + (1−q)². So q is at most
    (1 + sqrt(2·agreement − 1)) / 2: equal if q is the same for every pair, lower otherwise (Jensen).
    """
    return None if agreement is None else (1 + math.sqrt(max(2 * agreement - 1, 0.0))) / 2
