"""How right a reward model is, and how right it says it is: pure functions of score differences on pairs.

A difference is the log-odds that the model gives to what was said: sigmoid(difference) is its probability. Without
ties that is the raw score of the preferred completion less that of the other. Pairs of one prompt are not independent,
so intervals count prompts.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import softplus

Z_95 = 1.959963984540054  # the normal distribution's 97.5 % quantile


class Interval(NamedTuple):
    """An estimate with its 95 % confidence interval."""

    value: float
    low: float
    high: float


def hits(differences: Tensor) -> Tensor:
    """[P]: 1 where the preferred completion scores higher, ½ where both score the same, else 0."""
    return ((differences.sign() + 1) / 2).double()


def accuracy_interval(right: Tensor, cluster: Tensor) -> Interval:
    """Mean of `right` [P] (hits) with Wilson's interval (1927), at the number of independent pairs that P are worth.

    cluster [P]: the prompt of each pair. The effective number is P over Kish's design effect, with the variance of the
    mean estimated between clusters (ratio estimator); it is never more than P. Where that variance is 0 (all right, all
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
    # At a share of 0 or 1 the bound is the share itself, from which rounding must not keep it.
    return Interval(share, min(max(centre - half, 0.0), share), max(min(centre + half, 1.0), share))


def brier_score(differences: Tensor) -> float:
    """Mean squared distance of sigmoid(difference) from 1 (Brier 1950, one of two outcomes); ¼ for a coin."""
    return float((-differences.double()).sigmoid().square().mean())


def expected_calibration_error(differences: Tensor, bins: int = 10) -> float:
    """Mean distance between confidence and accuracy over bins of equal width in [½, 1] (Guo et al. 2017, eq. 3).

    Confidence is the probability of the completion that the model prefers.
    """
    confidence = differences.double().abs().sigmoid()
    which = ((confidence - 0.5) * 2 * bins).long().clamp(max=bins - 1)
    gap = torch.zeros(bins, dtype=torch.float64).index_add(0, which, confidence - hits(differences))
    return float(gap.abs().sum() / len(differences))


def fitted_temperature(differences: Tensor, low: float = 0.01, high: float = 100.0) -> float:
    """The T at which sigmoid(difference / T) is likeliest (Guo et al. 2017, §4.2): above 1, the model is too sure.

    Σ softplus(−a·d) is convex in a = 1/T, so its slope's only zero is found by halving; [low, high] bounds T where
    there is none (every pair right, or half of them wrong).
    """
    d = differences.double()
    cold, hot = 1 / low, 1 / high
    for _ in range(60):
        middle = math.sqrt(cold * hot)
        slope = float((-d * (-middle * d).sigmoid()).sum())
        cold, hot = (middle, hot) if slope > 0 else (cold, middle)
    return 1 / math.sqrt(cold * hot)


def log_loss(differences: Tensor) -> float:
    """Mean −log sigmoid(difference), nats."""
    return float(softplus(-differences.double()).mean())


class Agreement(NamedTuple):
    """How often two annotators who both preferred one of the same two completions preferred the same."""

    share: float | None  # None: no two annotators judged the same pair
    judgements: int  # pairs of annotators, over all pairs of completions


def annotator_agreement(votes: Sequence[Sequence[tuple[str, bool]]]) -> Agreement:
    """votes: for each pair of completions, who said so and whether they preferred the first. Ties are not votes."""
    same = total = 0
    for cast in votes:
        for i in range(len(cast)):
            for j in range(i):
                if cast[i][0] != cast[j][0]:
                    total += 1
                    same += cast[i][1] == cast[j][1]
    return Agreement(same / total if total else None, total)


def best_accuracy(agreement: float | None) -> float | None:
    """The most that any model can be right about single judgements, given how often two of them agree.

    If a judgement is as most people would say with probability q, two agree with q² + (1−q)², so q is at most
    (1 + sqrt(2·agreement − 1)) / 2 (exactly so when q is the same for every pair, else below it, by Jensen).
    """
    return None if agreement is None else (1 + math.sqrt(max(2 * agreement - 1, 0.0))) / 2
