"""How reliable each annotator is, estimated jointly with the pairs that they judged. Pure functions of votes.

The model is Crowd-BT (Chen, Bennett, Collins-Thompson and Horvitz 2013, «Pairwise ranking aggregation in a
crowdsourced setting», WSDM): annotator k says that i is better than j with probability

    P_k = η_k · σ(d) + (1 − η_k) · σ(−d) = ½ + (2η_k − 1) · (σ(d) − ½),        d = s_i − s_j,

the Bradley–Terry probability σ(d) of the pair, turned round with probability 1 − η_k. So η = 1 is somebody who judges
as Bradley and Terry have it, η = ½ clicks at random, and below ½ means the opposite of what they see. Written with
w = 2η − 1, P_k = w · σ(d) + (1 − w) · ½: a share w of their votes is judgement, and the rest is a coin.

What is ours, and why:

1. **Scores are integrated out, not maximised over.** A completion is judged in one comparison, by one to three people:
   with a score for each, the number of parameters grows with the data and the estimate of η is inconsistent (Neyman and
   Scott 1948). Each pair's d is N(0, τ²) instead, and is integrated out. The pairs of one comparison are taken as if
   they were independent (a composite likelihood: Varin, Reid and Firth 2011), which leaves the estimate consistent, and
   each counts 2/K of K completions, so that a ranking is worth the K − 1 choices that it takes.
2. **Priors.** Two people agree on a pair with probability ½ + 2·w_k·w_l·E(σ(d) − ½)²: from agreement alone the products
   of the w are known relative to how decided the pairs are, τ. Priors settle what the data cannot. η is Beta(4.5, 1.5),
   since most people are good: worth four answers. log τ is normal around log(π·√(2/3)), the deviation of d under their
   virtual node with λ = 1, which amounts to a logistic prior on each score. Gold, where the order is known and a vote
   is right with probability η itself, tells the two apart; without gold the level that is common to all rests on the
   priors, and who is better than whom does not.
3. **Who shares no comparison with anybody, and has ranked no gold, keeps the prior**: its mode 0.875, and an interval
   that says how little that is. The same holds for one who ties everything. Nobody can do better without overlap.
4. **Ties are no votes.** In Davidson's model of ties (1970) the chance of a tie is the same whichever is better, and
   given that there is none the choice is Bradley and Terry's: so the preferences of one who ties often are judged by
   themselves.
5. Everything is symmetric in turning all scores and all η round; the prior says that the majority is right. Where it
   is not, only gold can tell.
"""

import math
from dataclasses import dataclass

import numpy as np

from feedback.models.reliability import PRIOR
from feedback.models.reliability import PRIOR_RIGHT as A
from feedback.models.reliability import PRIOR_WRONG as B
from feedback.quality.reliability.votes import Alike, Floats, Integers, Votes, alike

SPREAD = math.pi * math.sqrt(2 / 3)  # τ's prior median
SPREAD_DEVIATION = 0.25  # of log τ
SPREADS = (0.5, 6.0)  # τ is looked for between these
FARTHEST = 7.0  # log-odds of η
NODES = 31  # of the quadrature
AT_ONCE = 4_000  # kinds of pairs
Z = 1.959964  # the normal distribution's 97.5 % point


@dataclass(frozen=True)
class Fitted:
    """The reliability η of each annotator, with 95 % intervals: aligned with `Votes.annotators`."""

    reliability: Floats
    low: Floats
    high: Floats
    spread: float  # τ: how far apart the scores of a pair are, in log-odds


def fit(votes: Votes) -> Fitted:
    """The mode of the posterior, found by L-BFGS from the prior's mode. A function of the votes as a set.

    The intervals are those of the log-odds of η, by H⁻¹·J·H⁻¹, with H the second derivatives and J the sum over
    comparisons of their gradients' outer products (Godambe 1960), since the votes on one comparison are not
    independent; to J the prior adds its own information. What is not known of τ is in them. Where H⁻¹ alone is wider
    it is taken: of few comparisons J knows too little. Simulated intervals of 95 % hold the truth in 89 to 94 % of
    cases with gold; without it they rest on the priors' level (85 % where that is right).
    """
    from scipy.optimize import minimize  # a third of a second to import, and most processes never fit

    kinds, count = alike(votes), len(votes.annotators)
    limits = [(-FARTHEST, FARTHEST)] * count + [(math.log(SPREADS[0]), math.log(SPREADS[1]))]
    whole = 1 + float(votes.weight.sum())

    def mean_loss(parameters: Floats) -> tuple[float, Floats]:
        value, gradient = loss(parameters, votes, kinds)
        return value / whole, gradient / whole

    def lowest(start: Floats) -> Floats:
        options = {"maxiter": 1000, "ftol": 1e-12, "gtol": 1e-7}
        return minimize(mean_loss, start, method="L-BFGS-B", jac=True, bounds=limits, options=options).x

    found = lowest(np.append(np.full(count, math.log(PRIOR / (1 - PRIOR))), math.log(SPREAD)))
    mirrored = np.append(-found[:-1], found[-1])  # point 5: where the other side is likelier
    if mean_loss(mirrored)[0] < mean_loss(found)[0]:
        found = lowest(mirrored)
    logits, error = found[:-1], np.sqrt(variances(found, votes, kinds))[:-1]
    spread = math.exp(found[-1])
    return Fitted(_sigmoid(logits), _sigmoid(logits - Z * error), _sigmoid(logits + Z * error), spread)


def loss(parameters: Floats, votes: Votes, kinds: list[Alike]) -> tuple[float, Floats]:
    """−log posterior, up to a constant, and its gradient, at the log-odds of each η and log τ (last)."""
    logits, log_spread = parameters[:-1], parameters[-1]
    eta, spread = _sigmoid(logits), math.exp(log_spread)
    value, slope = _of_prior_and_gold(logits, votes)
    value -= (log_spread - math.log(SPREAD)) ** 2 / (2 * SPREAD_DEVIATION**2)
    along_spread = -(log_spread - math.log(SPREAD)) / SPREAD_DEVIATION**2
    for part in _parts(kinds):
        likelihood, scores, of_spread = _of_pairs(part, 2 * eta - 1, spread)
        value += float(part.weight @ np.log(likelihood))
        weighted = scores * part.weight[:, None]
        slope += np.bincount(part.people.ravel(), weighted.ravel(), len(eta)) * 2 * eta * (1 - eta)
        along_spread += float(part.weight @ of_spread) * spread
    return -value, -np.append(slope, along_spread)


def variances(parameters: Floats, votes: Votes, kinds: list[Alike]) -> Floats:
    """[A + 1] of the parameters of `loss`, at its minimum."""
    prior = _prior_information(parameters)
    between = prior + _outer_products(*_gradients(parameters, votes, kinds), len(parameters))
    inverse = np.linalg.pinv(_information(parameters, votes, kinds), hermitian=True)
    return np.maximum(np.diag(inverse @ between @ inverse), np.diag(inverse))


def _prior_information(parameters: Floats) -> Floats:
    eta = _sigmoid(parameters[:-1])
    return np.diag(np.append((A + B - 2) * eta * (1 - eta), SPREAD_DEVIATION**-2))


def _information(parameters: Floats, votes: Votes, kinds: list[Alike]) -> Floats:
    """The second derivatives of `loss`; those by log τ as differences of its gradient."""
    eta, spread, gold = _sigmoid(parameters[:-1]), math.exp(parameters[-1]), votes.truth != 0
    total = _prior_information(parameters)
    of_gold = np.bincount(votes.annotator[gold], votes.weight[gold], len(eta)) * eta * (1 - eta)
    total[:-1, :-1] += np.diag(of_gold)
    for part in _parts(kinds):
        total[:-1, :-1] += _information_of(part, eta, spread)
    step = np.append(np.zeros(len(eta)), 1e-4)
    after, before = loss(parameters + step, votes, kinds)[1], loss(parameters - step, votes, kinds)[1]
    total[-1] = total[:, -1] = (after - before) / 2e-4
    return total


def _gradients(parameters: Floats, votes: Votes, kinds: list[Alike]) -> tuple[Integers, Integers, Floats]:
    """The gradient of the log likelihood by comparison: rows of comparison, place among the parameters, summand."""
    eta, spread, gold = _sigmoid(parameters[:-1]), math.exp(parameters[-1]), votes.truth != 0
    is_right = votes.sign[gold] == votes.truth[gold]
    of_gold = votes.weight[gold] * (is_right - eta[votes.annotator[gold]])
    rows = [(votes.comparison[gold], votes.annotator[gold], of_gold)]
    for each in kinds:
        found = [_of_pairs(part, 2 * eta - 1, spread)[1:] for part in _parts([each])]
        scores, by_spread = (np.concatenate(column) for column in zip(*found, strict=True))
        steps = (2 * eta * (1 - eta))[each.people] * scores
        every = np.column_stack([steps, by_spread * spread])[each.kind] * each.pair_weight[:, None]
        places = np.column_stack([each.people, np.full(len(steps), len(eta))])[each.kind]
        rows.append((np.repeat(each.comparison, every.shape[1]), places.ravel(), every.ravel()))
    comparison, place, summand = (np.concatenate(column) for column in zip(*rows, strict=True))
    return comparison, place, summand


def _of_prior_and_gold(logits: Floats, votes: Votes) -> tuple[float, Floats]:
    """log Beta's density and the log likelihood of votes on gold, and their gradient by the log-odds."""
    eta, gold = _sigmoid(logits), votes.truth != 0
    is_right = votes.sign[gold] == votes.truth[gold]
    of = votes.annotator[gold]
    right = A - 1 + np.bincount(of, votes.weight[gold] * is_right, len(eta))
    wrong = B - 1 + np.bincount(of, votes.weight[gold] * ~is_right, len(eta))
    value = -float(right @ np.logaddexp(0, -logits) + wrong @ np.logaddexp(0, logits))
    return value, right - (right + wrong) * eta


def _of_pairs(part: Alike, w: Floats, spread: float) -> tuple[Floats, Floats, Floats]:
    """Of N kinds of pairs: likelihood [N], and the derivatives of its logarithm by each person's w [N, m] and τ [N]."""
    chance, mirrored, mass = _quadrature(part, w, spread)
    joint = chance.prod(axis=1) * mass
    likelihood = joint.sum(axis=1)
    posterior = joint / likelihood[:, None]
    scores = np.einsum("ng,nmg->nm", posterior, mirrored / chance)
    nodes, _ = _nodes()
    judged = _sigmoid(spread * nodes)
    by_spread = (part.signs * w[part.people])[:, :, None] * (nodes * judged * (1 - judged)) / chance
    return likelihood, scores, np.einsum("ng,nmg->n", posterior, by_spread)


def _quadrature(part: Alike, w: Floats, spread: float) -> tuple[Floats, Floats, Floats]:
    """P_k of each vote at each node [N, m, G], its derivative by w [N, m, G], and the nodes' mass [G]."""
    nodes, mass = _nodes()
    mirrored = part.signs[:, :, None] * (_sigmoid(spread * nodes) - 0.5)
    return 0.5 + w[part.people][:, :, None] * mirrored, mirrored, mass


def _nodes() -> tuple[Floats, Floats]:
    """Where the standard normal distribution is looked at, and the mass there.

    The trapezoidal rule, whose error for functions like these falls exponentially with the distance of the nodes
    (Trefethen and Weideman 2014): below e⁻¹⁰ up to τ = 6, where that of Gauss and Hermite is a few percent.
    """
    nodes = np.linspace(-5, 5, NODES)
    mass = np.exp(-np.square(nodes) / 2)
    return nodes, mass / mass.sum()


def _information_of(part: Alike, eta: Floats, spread: float) -> Floats:
    """[A, A] −∂²/∂(log-odds)² of the log likelihood of the pairs."""
    chance, mirrored, mass = _quadrature(part, 2 * eta - 1, spread)
    joint = chance.prod(axis=1) * mass
    posterior, ratio = joint / joint.sum(axis=1, keepdims=True), mirrored / chance
    scores = np.einsum("ng,nkg->nk", posterior, ratio)
    step = (2 * eta * (1 - eta))[part.people]  # dw/d(log-odds)
    bend = step * (1 - 2 * eta[part.people])  # d²w/d(log-odds)²
    total = np.zeros((len(eta), len(eta)))
    for k in range(part.people.shape[1]):
        for other in range(part.people.shape[1]):
            # P_k is linear in w, so of one's own the second derivative is minus the square of the first.
            both = np.einsum("ng,ng,ng->n", posterior, ratio[:, k], ratio[:, other]) if other != k else 0
            crossed = (scores[:, k] * scores[:, other] - both) * step[:, k] * step[:, other]
            own = scores[:, k] * bend[:, k] if other == k else 0
            np.add.at(total, (part.people[:, k], part.people[:, other]), part.weight * (crossed - own))
    return total


def _outer_products(comparison: Integers, place: Integers, summand: Floats, count: int) -> Floats:
    """[count, count] Σ over comparisons of g·gᵀ, with g the sum of a comparison's summands at each place."""
    keys, of = np.unique(comparison * count + place, return_inverse=True)
    summed = np.bincount(of, summand, len(keys))
    comparison, place = keys // count, keys % count
    total = np.zeros((count, count))
    np.add.at(total, (place, place), summed**2)
    distance = 1
    while len(first := np.flatnonzero(comparison[:-distance] == comparison[distance:])):
        second = first + distance
        product = summed[first] * summed[second]
        np.add.at(total, (place[first], place[second]), product)
        np.add.at(total, (place[second], place[first]), product)
        distance += 1
    return total


def _parts(kinds: list[Alike]) -> list[Alike]:
    """The same, no part of which has more than AT_ONCE kinds of pairs, so that memory stays bounded."""
    return [
        _sliced(each, slice(begin, begin + AT_ONCE)) for each in kinds for begin in range(0, len(each.weight), AT_ONCE)
    ]


def _sliced(part: Alike, rows: slice) -> Alike:
    return part._replace(people=part.people[rows], signs=part.signs[rows], weight=part.weight[rows])


def _sigmoid(x: Floats) -> Floats:
    return 1 / (1 + np.exp(-x))
