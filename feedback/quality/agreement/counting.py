"""Shares of agreement and Krippendorff's alpha, each with its interval, for many groups of comparisons at once."""

import math
from collections.abc import Sequence

import numpy as np
from django.utils.functional import Promise

from feedback.quality.agreement.estimates import (
    ALL_TIES,
    ALPHA,
    ALPHA_WITHOUT_INTERVAL,
    NO_OVERLAP,
    NO_VARIATION,
    PAIRWISE,
    Z_95,
    AgreementMeasures,
    Estimate,
    undefined,
    wilson_interval,
)
from feedback.quality.agreement.pairwise import AGREE, BOTH_TIE, ONE_TIE, OPPOSE
from feedback.quality.ranking_arrays import Floats, Integers


def measure_groups(starts: Integers | Sequence[int], counts: Floats, weights: Floats) -> list[AgreementMeasures]:
    """Return the agreement of each group of comparisons.

    counts: [C, 4] per comparison; the rows of a group are adjacent. weights: [C] of a comparison's pairs in alpha.
    starts: the first row of each group. Without any group the result is one undefined measure.
    """
    if not len(starts):
        return [AgreementMeasures(undefined(NO_OVERLAP), undefined(NO_OVERLAP))]
    group_starts = np.asarray(starts)
    pairwise = shares(group_starts, counts[:, AGREE], counts[:, AGREE] + counts[:, OPPOSE], PAIRWISE)
    alpha = alphas(group_starts, counts, weights)
    return [AgreementMeasures(*measures) for measures in zip(pairwise, alpha, strict=True)]


def share(counts: Sequence[tuple[float, int]], template: str | Promise) -> Estimate:
    """Return the share Σ equal / Σ total of (equal, total) per comparison; see `shares`."""
    used = np.array([count for count in counts if count[1]], dtype=np.float64).reshape(-1, 2)
    if not len(used):
        return undefined(NO_OVERLAP)
    return shares(np.zeros(1, dtype=np.int64), used[:, 0], used[:, 1], template)[0]


def shares(starts: Integers, equal: Floats, total: Floats, template: str | Promise) -> list[Estimate]:
    """Return Σ equal / Σ total of each group of comparisons, with a Wilson interval for the effective number of pairs.

    The variance is that of a ratio estimator over clusters (Cochran 1977, Sampling Techniques, §2.11). The effective
    number is n divided by the design effect (Kish 1965), at most n. Wilson's interval (1927) takes it in place of n, as
    recommended by Franco, Little, Louis and Slud (2019, "Comparative study of confidence intervals for proportions in
    complex sample surveys"). Without any disagreement the design effect is unknown; the number of comparisons is then
    the effective number.
    """
    pairs, clusters = np.add.reduceat(total, starts), np.add.reduceat((total > 0).astype(float), starts)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = np.add.reduceat(equal, starts) / pairs
        residuals = equal - np.repeat(value, _group_sizes(starts, len(equal))) * total
        variance = clusters / (clusters - 1) * np.add.reduceat(np.square(residuals), starts) / pairs**2
        effective = np.where(variance > 0, value * (1 - value) / variance, clusters)
    effective = np.minimum(pairs, np.where((clusters > 1) & (value > 0) & (value < 1), effective, clusters))
    columns = (value.tolist(), effective.tolist(), pairs.tolist(), clusters.tolist())
    return [_share_estimate(*group, template) for group in zip(*columns, strict=True)]


def alphas(starts: Integers, counts: Floats, weights: Floats) -> list[Estimate]:
    """Return Krippendorff's ordinal alpha of each group, with a jackknife interval over its comparisons.

    The jackknife leaves out one comparison at a time (Efron and Tibshirani 1993, §11).
    """
    weighted = counts * weights[:, None]
    totals, sizes = np.add.reduceat(weighted, starts), _group_sizes(starts, len(counts))
    value = ordinal_alpha(totals)
    # The 1e-9 removes rounding errors, which would look like preferences once the only ones are left out.
    rest = np.repeat(totals, sizes, axis=0) - weighted
    without = ordinal_alpha(np.where(rest > 1e-9, rest, 0.0))
    defined = ~np.isnan(without)
    replicates = np.add.reduceat(defined.astype(float), starts)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = np.add.reduceat(np.where(defined, without, 0.0), starts) / replicates
        deviations = np.where(defined, without - np.repeat(mean, sizes), 0.0) ** 2
        error = np.sqrt((replicates - 1) / replicates * np.add.reduceat(deviations, starts))
    error = np.where((replicates > 1) & (error > 1e-9), error, np.nan)
    pairs = np.add.reduceat(counts, starts).sum(axis=1)
    columns = (value.tolist(), error.tolist(), pairs.tolist(), sizes.tolist())
    return [_alpha_estimate(*group) for group in zip(*columns, strict=True)]


def ordinal_alpha(counts: Floats) -> Floats:
    """Return α = 1 − (n − 1) · D_o/D_e of counts [..., 4] (agree, oppose, one tie, both tie); NaN if all are ties.

    Krippendorff (2011), Computing Krippendorff's Alpha-Reliability. The values are −1, 0 and 1. Each pair of
    completions counts in both directions, so that the order of positions has no effect; hence n₋₁ = n₁. The ordinal
    metric δ²(c, k) = (Σ_{g=c..k} n_g − (n_c + n_k)/2)² is (n₀ + n₁)²/4 from a tie to a preference, and four times that
    between opposite preferences. The common factor cancels and is left out.
    """
    agree, oppose, one, both = (counts[..., column] for column in (AGREE, OPPOSE, ONE_TIE, BOTH_TIE))
    preferring, tying = 2 * agree + 2 * oppose + one, 2 * one + 4 * both  # n₁ and n₀
    observed = 2 * one + 4 * (2 * oppose)
    expected = 2 * preferring * tying + 4 * preferring**2
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(expected > 0, 1 - (2 * preferring + tying - 1) * observed / expected, np.nan)


def _share_estimate(
    value: float, effective: float, pairs: float, comparisons: float, template: str | Promise
) -> Estimate:
    if not pairs:
        return undefined(ALL_TIES)
    return Estimate(value, *wilson_interval(value, effective), int(pairs), int(comparisons), template)


def _alpha_estimate(value: float, error: float, pairs: float, comparisons: int) -> Estimate:
    if math.isnan(value):
        return Estimate(None, None, None, int(pairs), comparisons, NO_VARIATION)
    if math.isnan(error):
        return Estimate(value, None, None, int(pairs), comparisons, ALPHA_WITHOUT_INTERVAL)
    low, high = max(-1.0, value - Z_95 * error), min(1.0, value + Z_95 * error)
    return Estimate(value, low, high, int(pairs), comparisons, ALPHA)


def _group_sizes(starts: Integers, rows: int) -> Integers:
    return np.diff(np.append(starts, rows))
