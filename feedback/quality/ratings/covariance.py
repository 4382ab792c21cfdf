"""Covariance of the estimates when preferences are not independent: clusters by prompt and by annotator.

Preferences about the same prompt are about the same completions, and those of one annotator follow the same taste.
The prompt holds the comparison, and so the ranking. With two kinds of clusters that cross each other, the covariance is
V(prompts) + V(annotators) − V(prompt and annotator) (Cameron, Gelbach and Miller 2011, Journal of Business & Economic
Statistics 29), with negative eigenvalues set to 0, as there. Each V is the sandwich H⁻¹·J·H⁻¹, where J is the sum over
clusters of the outer products of the clusters' scores (Liang and Zeger 1986, Biometrika 73), times G/(G − 1) for G
clusters; the intervals use Student's t with min(G) − 1 degrees of freedom. A kind of clusters with fewer than
MIN_CLUSTERS members is left out: the intervals then describe these members, not others like them.

The bootstrap replaces each V by the covariance over replicates in which every cluster has a random weight from the
exponential distribution (Rubin 1981, Annals of Statistics 9). All weights are positive, so a replicate has a finite
maximum wherever the estimate has one.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from feedback.quality.ranking_arrays import Floats, Integers
from feedback.quality.ratings import bradley_terry
from feedback.quality.ratings.bradley_terry import Cells, Fit
from feedback.quality.ratings.pairs import Pairs, numbered

MIN_CLUSTERS = 6
MAX_DENSE = 2_000_000  # numbers of a dense matrix of clusters' scores
CHUNK = 500_000  # numbers of a part of a larger one, which a processor's cache holds

Scores = list[tuple[Integers, Floats]]  # gradient of the log likelihood: (index of the parameter [N], value [N])


class Clusters(NamedTuple):
    """Kinds of clusters with the sign of their covariance in the sum."""

    kinds: list[tuple[int, Integers]]  # (sign, [N] index of each pair's cluster)
    degrees: int  # of freedom
    covers_annotators: bool

    @property
    def quantile(self) -> float:
        """Return Student's 97.5 % quantile."""
        from scipy.special import stdtrit  # takes a tenth of a second to import

        return float(stdtrit(self.degrees, 0.975))


class CellPairs(NamedTuple):
    """Pairs with their cells."""

    pairs: Pairs
    cells: Cells
    cell: Integers  # [N] index of each pair's cell


def clusters_of(pairs: Pairs) -> Clusters | None:
    """Return the clusters of pairs, or None if there are too few of every kind."""
    prompt, annotator = numbered(pairs.prompt), numbered(pairs.annotator)
    prompts, annotators = (int(index.max(initial=-1)) + 1 for index in (prompt, annotator))
    if min(prompts, annotators) >= MIN_CLUSTERS:
        key = prompt * annotators + annotator  # in ascending order
        both = np.append(0, np.cumsum(np.diff(key) != 0))
        return Clusters([(1, prompt), (1, annotator), (-1, both)], min(prompts, annotators) - 1, True)
    if prompts >= MIN_CLUSTERS:
        return Clusters([(1, prompt)], prompts - 1, False)
    if annotators >= MIN_CLUSTERS:
        return Clusters([(1, annotator)], annotators - 1, True)
    return None


def sandwich(data: CellPairs, fit: Fit, clusters: Clusters) -> Floats:
    """Return [P, P] the covariance of the parameters by the sandwich estimator."""
    scores, count = _scores(data, fit), len(fit.parameters)

    def covariance_of(cluster: Integers) -> Floats:
        return fit.inverse @ _outer_products(scores, cluster, count) @ fit.inverse

    return _without_negative_eigenvalues(_combine(clusters, covariance_of))


def sandwich_of_one(data: CellPairs, fit: Fit, clusters: Clusters, index: int) -> float:
    """Return the variance of one parameter by the sandwich estimator: in less time than all of them."""
    influence = np.zeros(len(data.cell))
    for parameter, value in _scores(data, fit):
        influence += fit.inverse[index, parameter] * value
    return variance_of_sum(clusters, influence)


def variance_of_sum(clusters: Clusters, values: Floats) -> float:
    """Return the variance of the sum of values [N] with mean 0 that depend on each other within clusters."""

    def variance_of(cluster: Integers) -> Floats:
        return np.square(np.bincount(cluster, values)).sum()

    return float(np.maximum(_combine(clusters, variance_of), 0))


def bootstrap(data: CellPairs, fit: Fit, clusters: Clusters, replicates: int, seed: int = 0) -> Floats:
    """Return [P, P] the covariance of the parameters over replicates. The same seed gives the same result."""
    generator = np.random.default_rng(seed)
    size = len(data.cells.first)
    key = data.cell * 3 + data.pairs.sign + 1

    def covariance_of(cluster: Integers) -> Floats:
        estimates = []
        for _ in range(replicates):
            weights = generator.exponential(size=int(cluster.max()) + 1)[cluster]
            counts: Floats = np.bincount(key, weights, 3 * size).astype(np.float64).reshape(size, 3)
            cells = data.cells._replace(counts=counts)
            estimates.append(bradley_terry.fit(cells, fit.parameters).parameters)
        return np.cov(np.array(estimates), rowvar=False)

    return _without_negative_eigenvalues(_combine(clusters, covariance_of))


def _combine(clusters: Clusters, covariance_of: Callable[[Integers], Floats]) -> Floats:
    terms = []
    for sign, cluster in clusters.kinds:
        count = int(cluster.max()) + 1
        terms.append(sign * count / (count - 1) * covariance_of(cluster))
    return np.sum(terms, axis=0)


def _without_negative_eigenvalues(covariance: Floats) -> Floats:
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.maximum(values, 0)) @ vectors.T


def _scores(data: CellPairs, fit: Fit) -> Scores:
    cells, pairs, cell = data.cells, data.pairs, data.cell
    residual = pairs.sign / 2 - fit.expected_sign[cell]
    columns = [(pairs.first, residual), (pairs.second, -residual)]
    for index in range(cells.covariates.shape[1]):
        parameter = np.full(len(cell), cells.sources + index)
        columns.append((parameter, residual * cells.covariates[cell, index]))
    if len(fit.parameters) > cells.sources + cells.covariates.shape[1]:  # log ν
        parameter = np.full(len(cell), len(fit.parameters) - 1)
        columns.append((parameter, (pairs.sign == 0) - fit.expected_tie[cell]))
    return columns


def _outer_products(scores: Scores, cluster: Integers, count: int) -> Floats:
    """Return [count, count] Σ over clusters of g·gᵀ, where g is the sum of a cluster's scores."""
    sizes = np.bincount(cluster)
    if len(sizes) * count <= MAX_DENSE:
        return _dense_products(scores, cluster, count)
    if (np.diff(cluster) < 0).any():
        order = np.argsort(cluster, kind="stable")
        scores = [(parameter[order], value[order]) for parameter, value in scores]
        cluster = cluster[order]
    if np.square(sizes).sum() <= 3 * len(cluster):
        return _sparse_products(scores, cluster, count)
    total, step = np.zeros((count, count)), max(1, CHUNK // count)
    for begin in range(0, len(sizes), step):
        rows = slice(*np.searchsorted(cluster, [begin, begin + step]))
        part = [(parameter[rows], value[rows]) for parameter, value in scores]
        total += _dense_products(part, cluster[rows] - begin, count)
    return total


def _dense_products(scores: Scores, cluster: Integers, count: int) -> Floats:
    size = (int(cluster.max()) + 1) * count
    sums = np.zeros(size)
    for parameter, value in scores:
        sums += np.bincount(cluster * count + parameter, value, size)
    by_cluster = sums.reshape(-1, count)
    return by_cluster.T @ by_cluster


def _sparse_products(scores: Scores, cluster: Integers, count: int) -> Floats:
    """Sum the products of two pairs of a cluster, by the distance of their rows; fast if most clusters are small."""
    total, distance, size = np.zeros((count, count)), 0, len(cluster)
    while len(rows := np.flatnonzero(cluster[: size - distance] == cluster[distance:])):
        products = np.zeros(count**2)
        for parameter, value in scores:
            for other_parameter, other_value in scores:
                key = parameter[rows] * count + other_parameter[rows + distance]
                products += np.bincount(key, value[rows] * other_value[rows + distance], count**2)
        square = products.reshape(count, count)
        total += square + square.T if distance else square
        distance += 1
    return total
