"""Bradley and Terry's model with Davidson's ties and covariates, by maximum likelihood.

For a pair of completions whose sources have the ratings θ₁ and θ₂ (Bradley and Terry 1952, Biometrika 39), and with
ties (Davidson 1970, Journal of the American Statistical Association 65), let d = θ₁ − θ₂ + x·β and

    P(first wins) = e^(d/2) / Z,   P(second wins) = e^(−d/2) / Z,   P(tie) = ν / Z,   Z = e^(d/2) + e^(−d/2) + ν.

This is an exponential family, so the log likelihood is concave in (θ, β, log ν) and Newton's method finds its maximum.
Without ties ν is 0. Only differences of θ matter: their mean is 0. Preferences of one ranking are not independent;
their sum of log likelihoods is a composite likelihood (Varin, Reid and Firth 2011, Statistica Sinica 21), whose maximum
is consistent and whose errors `covariance` computes. If rankings follow Plackett and Luce's model, their pairs follow
Bradley and Terry's.
"""

from typing import NamedTuple

import numpy as np

from feedback.quality.ranking_arrays import Floats, Integers

MAX_STEPS = 100
MAX_HALVINGS = 50  # of one step
MAX_DECREMENT = 1e-14  # of Newton's method at the maximum: squared distance, in standard errors
MIN_EIGENVALUE = 1e-10  # of the information with unit diagonal: below it, parameters are collinear
MAX_ERROR = 30.0  # standard error of a coefficient in units of its covariate's root mean square


class NoMaximum(ValueError):
    """The likelihood has no unique finite maximum: a covariate is collinear, or it separates wins from losses."""


class Cells(NamedTuple):
    """Counts of preferences that have the same two sources and the same covariates."""

    first: Integers  # [C] indices of sources
    second: Integers  # [C]
    covariates: Floats  # [C, M]
    counts: Floats  # [C, 3] losses, ties and wins of the first; weights need not be integers
    sources: int  # S


class Fit(NamedTuple):
    """The maximum. The P parameters are S ratings, M coefficients and, with ties, log ν."""

    parameters: Floats  # [P]
    inverse: Floats  # [P, P] inverse of the information; 1/S is added to it between ratings
    expected_sign: Floats  # [C] half of P(first wins) − P(second wins)
    expected_tie: Floats  # [C] P(tie)


class Derivatives(NamedTuple):
    """The log likelihood with its derivatives, and the expected preferences."""

    log_likelihood: float
    gradient: Floats  # [P]
    information: Floats  # [P, P] minus the second derivatives; 1/S is added to it between ratings
    expected_sign: Floats
    expected_tie: Floats


def fit(cells: Cells, start: Floats | None = None) -> Fit:
    """Return the maximum of the likelihood. Raises NoMaximum if there is none that is finite and unique.

    The caller has to leave out ratings without a finite estimate (`connectivity`). Ties make the parameter log ν.
    """
    scale = np.sqrt(np.square(cells.covariates).mean(axis=0))
    if (scale == 0).any():
        raise NoMaximum
    scaled = cells._replace(covariates=cells.covariates / scale)
    with_ties = bool(cells.counts[:, 1].any())
    units = np.concatenate([np.ones(cells.sources), 1 / scale, np.ones(int(with_ties))])
    parameters = np.zeros(len(units)) if start is None else start / units
    current = derivatives(scaled, parameters, with_ties)
    _check_rank(current.information)
    for _ in range(MAX_STEPS):
        step = np.asarray(np.linalg.solve(current.information, current.gradient), dtype=np.float64)
        decrement = float(step @ current.gradient)
        if decrement < MAX_DECREMENT:
            break
        parameters, current = _line_search(scaled, parameters, step, current, with_ties)
    else:
        raise NoMaximum
    inverse = np.asarray(np.linalg.inv(current.information), dtype=np.float64)
    coefficients = slice(cells.sources, cells.sources + len(scale))
    if (np.diag(inverse)[coefficients] > MAX_ERROR**2).any():
        raise NoMaximum
    return Fit(parameters * units, inverse * np.outer(units, units), current.expected_sign, current.expected_tie)


def _check_rank(information: Floats) -> None:
    diagonal = np.sqrt(np.diag(information))
    if np.linalg.eigvalsh(information / np.outer(diagonal, diagonal))[0] < MIN_EIGENVALUE:
        raise NoMaximum


def _line_search(
    cells: Cells, parameters: Floats, step: Floats, current: Derivatives, with_ties: bool
) -> tuple[Floats, Derivatives]:
    """Halve the step until the likelihood does not fall; near the maximum it may fall by rounding."""
    rounding = 1e-13 * abs(current.log_likelihood)
    for halvings in range(MAX_HALVINGS):
        candidate = parameters + step / 2.0**halvings
        at_candidate = derivatives(cells, candidate, with_ties)
        if at_candidate.log_likelihood >= current.log_likelihood - rounding:
            return candidate, at_candidate
    raise NoMaximum


def derivatives(cells: Cells, parameters: Floats, with_ties: bool) -> Derivatives:
    """Return the log likelihood, its derivatives and the expected preferences at these parameters."""
    count, ratings = cells.counts.sum(axis=1), parameters[: cells.sources]
    coefficients = parameters[cells.sources : cells.sources + cells.covariates.shape[1]]
    half = (ratings[cells.first] - ratings[cells.second] + cells.covariates @ coefficients) / 2
    log_nu = parameters[-1] if with_ties else -np.inf
    log_z = np.logaddexp(np.logaddexp(half, -half), log_nu)
    sign = (np.exp(half - log_z) - np.exp(-half - log_z)) / 2
    tie = np.exp(log_nu - log_z)
    observed_sign, observed_tie = (cells.counts[:, 2] - cells.counts[:, 0]) / 2, cells.counts[:, 1]
    log_likelihood = 2 * observed_sign @ half - count @ log_z
    gradient = by_parameter(cells, observed_sign - count * sign)
    information = _information(cells, count * ((1 - tie) / 4 - sign**2))
    if with_ties:
        log_likelihood += observed_tie.sum() * log_nu
        gradient = np.append(gradient, (observed_tie - count * tie).sum())
        crossed = by_parameter(cells, -count * sign * tie)[:, None]
        corner = np.array([[count @ (tie * (1 - tie))]])
        information = np.block([[information, crossed], [crossed.T, corner]])
    return Derivatives(float(log_likelihood), gradient, information, sign, tie)


def by_parameter(cells: Cells, values: Floats) -> Floats:
    """Return [S + M] Σ over cells of a value times the derivative of d by each rating and coefficient."""
    first = np.bincount(cells.first, values, cells.sources)
    return np.append(first - np.bincount(cells.second, values, cells.sources), values @ cells.covariates)


def _information(cells: Cells, weights: Floats) -> Floats:
    """Return [S + M, S + M] Σ over cells of a weight times the outer product of the derivatives of d."""
    between = np.bincount(cells.first * cells.sources + cells.second, weights, cells.sources**2)
    between = between.reshape(cells.sources, cells.sources)
    between = between + between.T
    ratings = np.diag(between.sum(axis=0)) - between + 1 / cells.sources
    weighted = [by_parameter(cells, weights * column) for column in cells.covariates.T]
    crossed = np.array(weighted).reshape(len(weighted), cells.sources + len(weighted))
    return np.block([[ratings, crossed[:, : cells.sources].T], [crossed]])
