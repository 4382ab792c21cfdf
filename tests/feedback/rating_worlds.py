"""Rankings with known ratings for the tests of ratings: by hand, by brute force and from simulated worlds."""

import itertools
import math

import numpy as np
from scipy import optimize

from feedback.quality.ratings import (
    RankedSources,
)
from feedback.quality.ratings.pairs import pairs_of

WINS = np.array([[0, 7, 4, 9], [3, 0, 6, 2], [5, 2, 0, 8], [1, 4, 3, 0]])  # of the row's source over the column's
STRENGTHS = np.array([-1.0, -0.4, 0.0, 0.5, 0.9])


def ranking(first, second, sign, prompt=0, annotator=0, first_is_shown_first=True, **fields):
    """A ranking of two completions; sign 1: the first is better, 0: they tie, −1: the second is better."""
    ranks = {1: [1, 2], 0: [1, 1], -1: [2, 1]}[sign]
    return RankedSources(
        prompt, annotator, ranks, [0, 1] if first_is_shown_first else [1, 0], [first, second], **fields
    )


def rankings_of(wins, ties=None):
    """Rankings with these counts, each of its own prompt."""
    rows = []
    for i, j in itertools.permutations(range(len(wins)), 2):
        rows += [(i, j, 1)] * int(wins[i][j]) + [(i, j, 0)] * int(ties[i][j] if ties is not None and i < j else 0)
    return [ranking(*row, prompt=index) for index, row in enumerate(rows)]


def values_of(result):
    return {rating.source_id: rating.value for rating in result.ratings}


def statuses_of(result):
    return {rating.source_id: rating.status for rating in result.ratings}


def log_probabilities(d, nu):
    """The logarithms of Davidson's probabilities that the first loses, ties and wins, written out from his paper."""
    strengths = np.exp(d), np.ones_like(d)  # π of the two
    tie = nu * np.sqrt(strengths[0] * strengths[1])
    total = strengths[0] + strengths[1] + tie
    with np.errstate(divide="ignore"):
        return np.log(np.array([strengths[1], tie, strengths[0]]) / total)


def brute_force(first, second, weights, style=None, with_ties=True):
    """Return (ratings, coefficients, log ν) that minimise the likelihood, by a search without our derivatives.

    weights: [3, N] of loss, tie and win of the first source.
    """
    count = max(*first, *second) + 1
    style = np.zeros((len(first), 0)) if style is None else style

    def loss(parameters):
        theta, beta, log_nu = np.split(parameters, [count, count + style.shape[1]])
        d = theta[first] - theta[second] + style @ beta
        logs = log_probabilities(d, np.exp(log_nu[0]) if with_ties else 0.0)
        return -(weights[weights > 0] * logs[weights > 0]).sum() + theta.mean() ** 2

    start = np.zeros(count + style.shape[1] + 1)
    best = optimize.minimize(loss, start, method="BFGS", options={"gtol": 1e-7}).x
    return best[:count], best[count:-1], best[-1]


def big_world(count, sources=8, annotators=30, seed=0):
    """Pairs of random sources with ties; each prompt has one or two."""
    generator = np.random.default_rng(seed)
    strengths = generator.normal(size=sources)
    rows = []
    for n in range(count):
        first, second = generator.permutation(sources)[:2]
        chances = np.exp(log_probabilities(strengths[first] - strengths[second], 0.4))
        sign = int(generator.choice([-1, 0, 1], p=chances))
        rows.append(ranking(int(first), int(second), sign, n * 2 // 3, int(generator.integers(annotators))))
    return pairs_of(rows), strengths


# Worlds: of two completions with ties where rankings are independent; where annotators have tastes; and of four
# completions without ties, where annotators have tastes and completions of one source differ from prompt to prompt.
WORLDS = {
    "independent": {"prompts": 300, "people": 10, "votes": 1, "size": 2, "nu": 0.5, "taste": 0.0, "quality": 0.0},
    "tastes": {"prompts": 250, "people": 20, "votes": 2, "size": 2, "nu": 0.5, "taste": 0.6, "quality": 0.0},
    "prompts": {"prompts": 100, "people": 20, "votes": 3, "size": 4, "nu": 0.0, "taste": 0.5, "quality": 0.8},
}


def world(generator, prompts, people, votes, size, nu, taste, quality):
    """Rankings by annotators who each have a taste for sources, of completions that each have a quality."""
    tastes, rows = generator.normal(0, taste, (people, len(STRENGTHS))), []
    for prompt in range(prompts):
        sources = generator.permutation(len(STRENGTHS))[:size]
        qualities = STRENGTHS[sources] + generator.normal(0, quality, size)
        for annotator in generator.permutation(people)[:votes]:
            utilities = qualities + tastes[annotator, sources]
            if nu:
                sign = generator.choice([-1, 0, 1], p=np.exp(log_probabilities(utilities[0] - utilities[1], nu)))
                ranks = {1: [1, 2], 0: [1, 1], -1: [2, 1]}[int(sign)]
            else:
                ranks = (1 + np.argsort(np.argsort(-utilities - generator.gumbel(size=size)))).tolist()
            order = generator.permutation(size).tolist()
            rows.append(RankedSources(prompt, int(annotator), ranks, order, sources.tolist()))
    return rows


def ratings_of_the_population(nu, taste, quality, **_):
    """The ratings that infinitely many annotators and prompts would give, by quadrature and brute force."""
    nodes, mass = np.polynomial.hermite_e.hermegauss(41)
    first, second = np.triu_indices(len(STRENGTHS), 1)
    d = (STRENGTHS[first] - STRENGTHS[second])[:, None] + math.sqrt(2 * (taste**2 + quality**2)) * nodes
    chances = np.exp(log_probabilities(d, nu)) @ (mass / mass.sum())
    return brute_force(first, second, chances, with_ties=nu > 0)[0]
