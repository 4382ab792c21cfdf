"""Shares of the preferences between two sources, with intervals for preferences that depend on each other.

A tie counts as half a preference for each. The interval is Wilson's (1927) for the effective number of preferences: n
divided by the design effect (Kish 1965), at most n, and multiplied by (z/t)² for Student's t (Korn and Graubard 1998,
Survey Methodology 24, for few clusters). The variance is that of `covariance`, for prompts and annotators, and at least
that for prompts alone, because the difference of clusters may be small by chance. Where it is unknown (all preferences
alike, or fewer than six prompts and annotators) the number of prompts is the effective number.
"""

from collections.abc import Sequence

import numpy as np

from feedback.quality.agreement.estimates import Z_95, wilson_interval
from feedback.quality.ranking_arrays import Floats
from feedback.quality.ratings import covariance
from feedback.quality.ratings.covariance import Clusters
from feedback.quality.ratings.estimates import WinRate
from feedback.quality.ratings.pairs import Pairs, pairs_of
from feedback.quality.ratings.ranked_sources import RankedSources


def win_rates(pairs: Pairs) -> list[WinRate]:
    """Return the win rate of every two sources that met; the first one has the lower id."""
    key = pairs.first * len(pairs.sources) + pairs.second
    order = np.argsort(key, kind="stable")  # keeps the order of prompts and annotators
    starts = np.flatnonzero(np.diff(key[order], prepend=-1))
    groups = np.split(order, starts[1:]) if len(order) else []
    return [win_rate(pairs.select(rows)) for rows in groups]


def win_rate(pairs: Pairs) -> WinRate:
    """Return the win rate over pairs of the same two sources, of which there is at least one."""
    score = score_of(pairs)
    value, prompts = float(score.mean()), len(np.unique(pairs.prompt))
    clusters = covariance.clusters_of(pairs)
    effective = float(prompts)
    if clusters and 0 < value < 1 and (variance := variance_of_sum(clusters, score - value) / len(score) ** 2) > 0:
        effective = min(len(score), value * (1 - value) / variance) * (Z_95 / clusters.quantile) ** 2
    low, high = wilson_interval(value, effective)
    lost, tied, won = np.bincount(pairs.sign + 1, minlength=3).tolist()
    ids = (int(pairs.sources[pairs.first[0]]), int(pairs.sources[pairs.second[0]]))
    return WinRate(*ids, value, low, high, won, tied, lost, prompts)


def pairs_between(rankings: Sequence[RankedSources], source_id: int, other_id: int) -> tuple[Pairs, list[int]]:
    """Return the pairs of two sources, and the ids of their prompts in the order of the pairs' indices."""
    both = {source_id, other_id}
    rows = [ranking._replace(style=()) for ranking in rankings if both <= set(ranking.sources)]
    pairs = pairs_of(rows)
    is_between = np.isin(pairs.sources[pairs.first], list(both)) & np.isin(pairs.sources[pairs.second], list(both))
    return pairs.select(is_between), sorted({row.prompt_id for row in rows})


def score_of(pairs: Pairs) -> Floats:
    """Return [N] 1 for a preference for the first source, 0 for the second, 0.5 for a tie."""
    score: Floats = (pairs.sign + 1.0) / 2
    return score


def variance_of_sum(clusters: Clusters, values: Floats) -> float:
    """Return the variance of a sum of values [N] with mean 0: at least that for the first kind of clusters."""
    first = clusters._replace(kinds=clusters.kinds[:1])
    return max(covariance.variance_of_sum(clusters, values), covariance.variance_of_sum(first, values))
