"""Shares of agreement and Krippendorff's alpha, each with its interval, for many groups of comparisons at once."""

import math
from collections.abc import Sequence

import numpy as np
from django.utils.functional import Promise

from feedback.quality.agreement.estimates import (
    ALL_TIES,
    ALPHA,
    ALPHA_ALONE,
    NO_DIFFERENCE,
    NOBODY_TWICE,
    OF_TWO_PEOPLE,
    Agreed,
    Estimate,
    Z,
    undefined,
    wilson,
)
from feedback.quality.agreement.pairwise import AGREE, BOTH_TIE, ONE_TIE, OPPOSE, Floats, Integers


def agreed(starts: Integers | Sequence[int], counts: Floats, weights: Floats) -> list[Agreed]:
    """Agreement of groups of comparisons.

    counts: [C, 4] of each comparison, a group's own in a row; weights: [C] of a comparison's pairs in alpha; starts:
    the first row of each group. Without any group one that holds nothing is taken.
    """
    if not len(starts):
        return [Agreed(undefined(NOBODY_TWICE), undefined(NOBODY_TWICE))]
    at = np.asarray(starts)
    pairwise = shares(at, counts[:, AGREE], counts[:, AGREE] + counts[:, OPPOSE], OF_TWO_PEOPLE)
    return [Agreed(*both) for both in zip(pairwise, alphas(at, counts, weights), strict=True)]


def share(counts: Sequence[tuple[int, int]], told: str | Promise) -> Estimate:
    """The share Σ same / Σ all over comparisons, of (same, all) in each: see `shares`."""
    used = np.array([each for each in counts if each[1]], dtype=np.float64).reshape(-1, 2)
    if not len(used):
        return undefined(NOBODY_TWICE)
    return shares(np.zeros(1, dtype=np.int64), used[:, 0], used[:, 1], told)[0]


def shares(starts: Integers, same: Floats, all_: Floats, told: str | Promise) -> list[Estimate]:
    """Of each group of comparisons Σ same / Σ all, with a Wilson interval for the effective number of pairs.

    The variance is that of a ratio estimator over clusters (Cochran 1977, Sampling Techniques, §2.11); the effective
    number is n divided by the design effect (Kish 1965), never more than n; and Wilson's interval (1927) takes it in
    place of n, as Franco, Little, Louis and Slud (2019, «Comparative study of confidence intervals for proportions in
    complex sample surveys») recommend. Without any disagreement the design effect is unknown, and the number of
    comparisons is taken.
    """
    pairs, clusters = np.add.reduceat(all_, starts), np.add.reduceat((all_ > 0).astype(float), starts)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = np.add.reduceat(same, starts) / pairs
        residuals = same - np.repeat(value, _sizes(starts, len(same))) * all_
        variance = clusters / (clusters - 1) * np.add.reduceat(np.square(residuals), starts) / pairs**2
        effective = np.where(variance > 0, value * (1 - value) / variance, clusters)
    effective = np.minimum(pairs, np.where((clusters > 1) & (value > 0) & (value < 1), effective, clusters))
    return [
        Estimate(each, *wilson(each, n), int(count), int(seen), told) if count else undefined(ALL_TIES)
        for each, n, count, seen in zip(*(x.tolist() for x in (value, effective, pairs, clusters)), strict=True)
    ]


def alphas(starts: Integers, counts: Floats, weights: Floats) -> list[Estimate]:
    """Krippendorff's alpha, ordinal, of each group; the interval by the jackknife over its comparisons.

    The jackknife leaves out one comparison at a time (Efron and Tibshirani 1993, §11).
    """
    weighted = counts * weights[:, None]
    totals, sizes = np.add.reduceat(weighted, starts), _sizes(starts, len(counts))
    value = ordinal_alpha(totals)
    # Rounding must not leave a trace of the only comparison that had a preference.
    rest = np.repeat(totals, sizes, axis=0) - weighted
    without = ordinal_alpha(np.where(rest > 1e-9, rest, 0.0))
    known = ~np.isnan(without)
    left = np.add.reduceat(known.astype(float), starts)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = np.add.reduceat(np.where(known, without, 0.0), starts) / left
        spread = np.where(known, without - np.repeat(mean, sizes), 0.0) ** 2
        error = np.sqrt((left - 1) / left * np.add.reduceat(spread, starts))
    error = np.where((left > 1) & (error > 1e-9), error, np.nan)
    pairs = np.add.reduceat(counts, starts).sum(axis=1)
    return [_alpha(*row) for row in zip(*(x.tolist() for x in (value, error, pairs, sizes)), strict=True)]


def ordinal_alpha(counts: Floats) -> Floats:
    """[…, 4] pairs: agreeing, opposed, one tie, both ties → […] α = 1 − (n − 1) · D_o/D_e; NaN: all are ties.

    Krippendorff (2011), Computing Krippendorff's Alpha-Reliability. The values are −1, 0 and 1. Each pair
    of completions counts in both directions, so that the order of positions means nothing; hence n₋₁ = n₁, and the
    ordinal metric δ²(c, k) = (Σ_{g=c..k} n_g − (n_c + n_k)/2)² is (n₀ + n₁)²/4 from a tie to a preference and four
    times that between opposite ones: the common factor is left out.
    """
    agree, oppose, one, both = (counts[..., column] for column in (AGREE, OPPOSE, ONE_TIE, BOTH_TIE))
    preferring, tying = 2 * agree + 2 * oppose + one, 2 * one + 4 * both  # n₁ and n₀
    observed = 2 * one + 4 * (2 * oppose)
    expected = 2 * preferring * tying + 4 * preferring**2
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(expected > 0, 1 - (2 * preferring + tying - 1) * observed / expected, np.nan)


def _alpha(value: float, error: float, pairs: float, comparisons: int) -> Estimate:
    if math.isnan(value):
        return Estimate(None, None, None, int(pairs), comparisons, NO_DIFFERENCE)
    if math.isnan(error):
        return Estimate(value, None, None, int(pairs), comparisons, ALPHA_ALONE)
    low, high = max(-1.0, value - Z * error), min(1.0, value + Z * error)
    return Estimate(value, low, high, int(pairs), comparisons, ALPHA)


def _sizes(starts: Integers, rows: int) -> Integers:
    return np.diff(np.append(starts, rows))
