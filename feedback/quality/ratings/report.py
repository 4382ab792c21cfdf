"""Ratings of sources from rankings: connectivity, fit, intervals, counts by two sources, and position bias."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from feedback.quality.ranking_arrays import Booleans, Floats, Integers
from feedback.quality.ratings import bradley_terry, connectivity, covariance
from feedback.quality.ratings.bradley_terry import Cells, NoMaximum
from feedback.quality.ratings.covariance import CellPairs, Clusters
from feedback.quality.ratings.estimates import Coefficient, Rating, Ratings, Status
from feedback.quality.ratings.pairs import Pairs, numbered, pairs_of
from feedback.quality.ratings.ranked_sources import RankedSources


class Estimates(NamedTuple):
    """Estimates of P parameters with their covariance; see `bradley_terry.Fit`."""

    values: Floats  # [P]
    covariance: Floats | None  # [P, P]; None: too few clusters
    quantile: float
    degrees: int
    covers_annotators: bool
    has_ties: bool

    def coefficient(self, name: str, index: int) -> Coefficient:
        value = float(self.values[index])
        if self.covariance is None:
            return Coefficient(name, value)
        margin = self.quantile * float(np.sqrt(self.covariance[index, index]))
        return Coefficient(name, value, value - margin, value + margin)


def rate_rankings(
    rankings: Iterable[RankedSources],
    style_names: Sequence[str] = (),
    replicates: int = 0,
    min_different: Mapping[str, int] | None = None,
) -> Ratings:
    """Return the ratings; see the package's function of the same name."""
    return rate_pairs(pairs_of(rankings, len(style_names)), style_names, replicates, min_different)


def rate_pairs(
    pairs: Pairs,
    style_names: Sequence[str] = (),
    replicates: int = 0,
    min_different: Mapping[str, int] | None = None,
) -> Ratings:
    """Return the ratings of the sources in pairs that have these style covariates.

    min_different: the least number of pairs that must differ in a covariate, by its name; a rarer one is left out.
    """
    wins, ties = count_pairs(pairs)
    statuses = connectivity.statuses(wins, ties)
    is_rated = np.array([status == Status.RATED for status in statuses], dtype=np.bool_)
    estimates = first_shown = None
    used_names: list[str] = []
    if is_rated.any():
        try:
            rated_pairs = _pairs_between(pairs, is_rated)
            rated_pairs, used_names = _without_rare_style(rated_pairs, style_names, min_different or {})
            clusters = covariance.clusters_of(rated_pairs)
            estimates = estimate(rated_pairs, rated_pairs.style, clusters, replicates)
            first_shown = _first_shown(rated_pairs, clusters)
        except NoMaximum:  # of a style covariate
            statuses = [Status.UNDETERMINED if status == Status.RATED else status for status in statuses]
    rated = np.flatnonzero(is_rated) if estimates else np.zeros(0, dtype=np.int64)
    return Ratings(
        ratings=_ratings(pairs.sources, statuses, rated, estimates, wins, ties),
        sources=pairs.sources.tolist(),
        wins=wins.tolist(),
        ties=ties.tolist(),
        style=_style(style_names, used_names, len(rated), estimates),
        log_nu=estimates.coefficient("log_nu", -1) if estimates and estimates.has_ties else None,
        first_shown=first_shown,
        preferences=len(pairs.first),
        prompts=int(pairs.prompt.max(initial=-1)) + 1,
        annotators=int(pairs.annotator.max(initial=-1)) + 1,
        covers_annotators=estimates is not None and estimates.covers_annotators,
        rated=pairs.sources[rated].tolist(),
        covariance=_rating_covariance(len(rated), estimates),
        quantile=estimates.quantile if estimates else 0.0,
        degrees=estimates.degrees if estimates else 0,
    )


def count_pairs(pairs: Pairs) -> tuple[Integers, Integers]:
    """Return [S, S] wins of the row's source over the column's, and ties."""
    size = len(pairs.sources)
    key = (pairs.first * size + pairs.second) * 3 + pairs.sign + 1
    counts = np.bincount(key, minlength=3 * size**2).reshape(size, size, 3)
    lost, tied, won = counts[:, :, 0], counts[:, :, 1], counts[:, :, 2]
    return won + lost.T, tied + tied.T


def estimate(pairs: Pairs, covariates: Floats, clusters: Clusters | None, replicates: int = 0) -> Estimates:
    """Return the estimates for pairs whose sources all have a finite rating. Raises NoMaximum.

    covariates: [N, M] of d, for the first source minus the second.
    """
    data = cell_pairs(pairs, covariates)
    fit = bradley_terry.fit(data.cells)
    has_ties = len(fit.parameters) > len(pairs.sources) + covariates.shape[1]
    if clusters is None:
        return Estimates(fit.parameters, None, 0.0, 0, False, has_ties)
    if replicates:
        errors = covariance.bootstrap(data, fit, clusters, replicates)
    else:
        errors = covariance.sandwich(data, fit, clusters)
    uncertainty = (errors, clusters.quantile, clusters.degrees, clusters.covers_annotators)
    return Estimates(fit.parameters, *uncertainty, has_ties)


def cell_pairs(pairs: Pairs, covariates: Floats) -> CellPairs:
    """Group pairs by sources and covariates; with style covariates nearly every pair would be a cell, so it is one."""
    size, count = len(pairs.sources), covariates.shape[1]
    if pairs.style.shape[1]:
        cell = np.arange(len(pairs.first))
    else:
        key = pairs.first * size + pairs.second
        for column in covariates.T:  # of signs
            key = key * 3 + column.astype(np.int64) + 1
        cell = numbered(key)
    cells = int(cell.max()) + 1
    first, second, values = np.empty(cells, np.int64), np.empty(cells, np.int64), np.empty((cells, count))
    first[cell], second[cell], values[cell] = pairs.first, pairs.second, covariates
    counts = np.bincount(cell * 3 + pairs.sign + 1, minlength=3 * cells).reshape(cells, 3)
    return CellPairs(pairs, Cells(first, second, values, counts.astype(np.float64), size), cell)


def _pairs_between(pairs: Pairs, is_rated: Booleans) -> Pairs:
    """Return the pairs of rated sources, which get new indices."""
    if is_rated.all():
        return pairs
    index = np.cumsum(is_rated) - 1
    between = pairs.select(is_rated[pairs.first] & is_rated[pairs.second])
    return between._replace(first=index[between.first], second=index[between.second], sources=pairs.sources[is_rated])


def _first_shown(pairs: Pairs, clusters: Clusters | None) -> Coefficient:
    """Return the log-odds that the completion shown first gains, estimated together with ratings and style."""
    try:
        data = cell_pairs(pairs, np.column_stack([pairs.style, pairs.shown_first]))
        fit = bradley_terry.fit(data.cells)
    except NoMaximum:
        return Coefficient("first_shown", None)
    index = len(pairs.sources) + pairs.style.shape[1]
    value = float(fit.parameters[index])
    if clusters is None:
        return Coefficient("first_shown", value)
    margin = clusters.quantile * math.sqrt(covariance.sandwich_of_one(data, fit, clusters, index))
    return Coefficient("first_shown", value, value - margin, value + margin)


def _without_rare_style(
    pairs: Pairs, names: Sequence[str], min_different: Mapping[str, int]
) -> tuple[Pairs, list[str]]:
    """Return the pairs with the style covariates in which enough of them differ, and the names of these."""
    different = np.count_nonzero(pairs.style, axis=0)
    used = [index for index, name in enumerate(names) if different[index] >= min_different.get(name, 0)]
    return pairs._replace(style=pairs.style[:, used]), [names[index] for index in used]


def _style(
    names: Sequence[str], used_names: Sequence[str], rated: int, estimates: Estimates | None
) -> list[Coefficient]:
    parameter = {name: rated + index for index, name in enumerate(used_names)}
    if estimates is None:
        return [Coefficient(name, None) for name in names]
    return [
        estimates.coefficient(name, parameter[name]) if name in parameter else Coefficient(name, None) for name in names
    ]


def _rating_covariance(rated: int, estimates: Estimates | None) -> list[list[float]]:
    if estimates is None or estimates.covariance is None:
        return []
    return estimates.covariance[:rated, :rated].tolist()


def _ratings(
    sources: Integers,
    statuses: Sequence[Status],
    rated: Integers,
    estimates: Estimates | None,
    wins: Integers,
    ties: Integers,
) -> list[Rating]:
    parameter = {int(source): index for index, source in enumerate(rated)}
    ratings = []
    for index, (source_id, status) in enumerate(zip(sources.tolist(), statuses, strict=True)):
        rating = Coefficient("rating", None)
        if estimates and index in parameter:
            rating = estimates.coefficient("rating", parameter[index])
        counts = (int(wins[index].sum()), int(ties[index].sum()), int(wins[:, index].sum()))
        ratings.append(Rating(source_id, status, rating.value, rating.low, rating.high, *counts))
    return sorted(ratings, key=lambda rating: (rating.value is None, -(rating.value or 0.0)))
