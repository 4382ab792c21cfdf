"""The reliability model against brute force, and on simulated annotators whose reliability is known."""

import math
from functools import cache

import numpy as np
import pytest
from scipy import integrate, optimize, stats

from feedback.quality.ranking_rows import RankingRow
from feedback.quality.reliability import crowd_bt
from feedback.quality.reliability.votes import vote_patterns, votes_of

pytestmark = pytest.mark.slow

CAREFUL, CLICKERS, ADVERSARY = [0.97, 0.95, 0.95, 0.9, 0.9, 0.85, 0.8], [0.5, 0.5], [0.1]
PEOPLE = np.array(CAREFUL + CLICKERS + ADVERSARY)


def simulated(comparisons, people=3, size=2, gold=0, seed=0, true=PEOPLE, spread=2.5):
    """Rankings by Plackett and Luce's model, whole ones reversed with probability 1 − η.

    `gold` comparisons come first, far apart and ranked by everybody.
    """
    generator = np.random.default_rng(seed)
    for pk in range(comparisons):
        scores = generator.normal(0, spread / math.sqrt(2), size) * (30 if pk < gold else 1)
        who = generator.permutation(len(true))[: len(true) if pk < gold else people]
        for index in who:
            perceived = scores + generator.gumbel(size=size)
            perceived = perceived if generator.random() < true[index] else -perceived
            yield RankingRow(pk, int(index), ranks_of(perceived), ranks_of(scores) if pk < gold else None)


def ranks_of(values):
    return (1 + np.argsort(np.argsort(-np.asarray(values)))).tolist()


def fitted(rows):
    return crowd_bt.fit(votes_of(rows))


def brute_force(votes, gold, count):
    """The posterior's mode for pairs of two completions, by Simpson's rule and a search without derivatives.

    votes: of each pair {annotator: whether the first is better}; gold: (annotator, whether right).
    """
    z = np.linspace(-9, 9, 1801)

    def loss(parameters):
        eta, first = stats.logistic.cdf(parameters[:-1]), stats.logistic.cdf(math.exp(parameters[-1]) * z)
        total = stats.norm.logpdf(parameters[-1], math.log(math.pi * math.sqrt(2 / 3)), 0.25)
        total += sum(3.5 * math.log(each) + 0.5 * math.log(1 - each) for each in eta)
        total += sum(math.log(eta[index] if is_right else 1 - eta[index]) for index, is_right in gold)
        for pair in votes:
            joint = stats.norm.pdf(z)
            for index, is_first in pair.items():
                chance = first if is_first else 1 - first
                joint = joint * (eta[index] * chance + (1 - eta[index]) * (1 - chance))
            total += math.log(integrate.simpson(joint, x=z))
        return -total

    options = {"xatol": 1e-5, "fatol": 1e-9, "maxiter": 2000}
    result = optimize.minimize(loss, [1.0] * count + [1.0], method="Nelder-Mead", options=options)
    return stats.logistic.cdf(result.x[:-1]), math.exp(result.x[-1])


def test_the_estimate_is_that_of_brute_force():
    votes = [{0: True, 1: True}, {0: True, 1: False}, {0: False, 1: False, 2: True}, {1: True, 2: False}]
    gold = [(0, True), (1, True), (2, False), (0, True)]
    rows = [
        RankingRow(pk, index, [1, 2] if is_first else [2, 1], None)
        for pk, pair in enumerate(votes)
        for index, is_first in pair.items()
    ]
    rows += [RankingRow(100 + pk, index, [1, 2] if right else [2, 1], [1, 2]) for pk, (index, right) in enumerate(gold)]
    expected, spread = brute_force(votes, gold, 3)
    result = fitted(rows)
    assert result.reliability == pytest.approx(expected, abs=1e-3)
    assert result.spread == pytest.approx(spread, rel=5e-3)


def test_the_derivatives_agree_with_finite_differences():
    votes = votes_of(simulated(40, people=4, size=3, gold=4, seed=1))
    patterns = vote_patterns(votes)
    at = np.append(np.random.default_rng(1).normal(1, 1, len(votes.annotators)), 0.7)
    gradient = optimize.approx_fprime(at, lambda x: crowd_bt.loss(x, votes, patterns)[0], 1e-6)
    assert crowd_bt.loss(at, votes, patterns)[1] == pytest.approx(gradient, abs=1e-4)
    curvature = optimize.approx_fprime(at, lambda x: crowd_bt.loss(x, votes, patterns)[1], 1e-6)
    assert crowd_bt._information(at, votes, patterns) == pytest.approx(curvature, abs=1e-3)


def test_the_gradients_of_all_comparisons_sum_to_the_whole():
    votes = votes_of(simulated(40, people=4, size=3, gold=4, seed=2))
    patterns, at = vote_patterns(votes), np.append(np.linspace(-1, 2, len(PEOPLE)), 0.7)
    comparison, place, summand = crowd_bt._gradients(at, votes, patterns)
    assert len(set(comparison.tolist())) == 40
    prior = crowd_bt.loss(at, votes_of([RankingRow(0, index, [1, 1], None) for index in range(len(PEOPLE))]), [])[1]
    assert np.bincount(place, summand, len(at)) == pytest.approx(prior - crowd_bt.loss(at, votes, patterns)[1])


@cache
def with_gold(seed, size):
    return fitted(simulated(1200 // size, size=size, gold=40, seed=seed))


@pytest.mark.parametrize("size", [2, 4])
def test_known_reliabilities_are_recovered(size):
    result = [with_gold(seed, size) for seed in range(6)]
    errors = np.concatenate([np.abs(each.reliability - PEOPLE) for each in result])
    covered = np.concatenate([(each.low <= PEOPLE) & (each.high >= PEOPLE) for each in result])
    assert errors.mean() < 0.05
    assert covered.mean() > 0.85  # of 60 intervals of 95 %


def test_without_gold_the_order_is_recovered_all_the_same():
    result = fitted(simulated(2500, seed=3))
    assert stats.spearmanr(result.reliability, PEOPLE).statistic > 0.85
    assert result.high[-1] < 0.5  # the adversary
    assert (result.low[:7] > 0.5).all()
    assert (result.low[7:9] < 0.6).all()  # the clickers


def test_weighted_votes_are_right_more_often_than_plain_ones():
    """Among three voters, two of whom may be clickers, the weights 2η − 1 find the better completion more often."""
    true = np.array([0.97, 0.95, 0.9, 0.5, 0.5, 0.5])
    rows = list(simulated(3000, true=true, spread=8.0, seed=4))
    weight = np.maximum(2 * fitted(rows).reliability - 1, 0)
    # The same seed and order of draws: the scores that the rankings came from.
    generator, plain, weighted, decided = np.random.default_rng(4), 0, 0, 0
    by_comparison = {}
    for each in rows:
        by_comparison.setdefault(each.comparison_id, []).append(each)
    for rankings in by_comparison.values():
        scores = generator.normal(0, 8.0 / math.sqrt(2), 2)
        generator.permutation(len(true))
        for _ in rankings:
            generator.gumbel(size=2)
            generator.random()
        votes = [np.sign(each.ranks[1] - each.ranks[0]) for each in rankings]
        truth, decided = np.sign(scores[0] - scores[1]), decided + 1
        plain += np.sign(sum(votes)) == truth
        weighted += (
            np.sign(sum(vote * weight[e.annotator_id] for vote, e in zip(votes, rankings, strict=True))) == truth
        )
    assert decided == 3000
    assert weighted / decided > plain / decided + 0.05


def test_the_order_of_rows_and_the_ids_of_completions_do_not_change_the_result():
    rows = list(simulated(80, size=3, gold=5, seed=5))
    mirrored = [each._replace(ranks=each.ranks[::-1], gold_ranks=each.gold_ranks and each.gold_ranks[::-1])
              for each in rows]  # fmt: skip
    np.random.default_rng(5).shuffle(mirrored)
    before, after = fitted(rows), fitted([RankingRow(*each) for each in mirrored])
    for name in ("reliability", "low", "high", "spread"):
        assert getattr(after, name) == pytest.approx(getattr(before, name), abs=1e-4)


def test_names_of_annotators_do_not_change_the_result():
    rows = list(simulated(80, seed=6))
    before, after = fitted(rows), fitted([each._replace(annotator_id=50 - each.annotator_id) for each in rows])
    assert after.reliability[::-1] == pytest.approx(before.reliability, abs=1e-4)


def test_an_annotator_without_shared_comparisons_keeps_the_prior_and_its_interval():
    rows = [*simulated(60, seed=7), *(RankingRow(1000 + pk, 99, [1, 2], None) for pk in range(300))]
    votes = votes_of(rows)
    result = crowd_bt.fit(votes)
    assert votes.annotators[-1] == 99
    assert result.reliability[-1] == pytest.approx(crowd_bt.PRIOR, abs=1e-4)
    error = 1 / math.sqrt(4 * crowd_bt.PRIOR * (1 - crowd_bt.PRIOR))
    log_odds = math.log(crowd_bt.PRIOR / (1 - crowd_bt.PRIOR))
    assert stats.logistic.ppf(result.low[-1]) == pytest.approx(log_odds - 1.96 * error, abs=1e-2)
    assert stats.logistic.ppf(result.high[-1]) == pytest.approx(log_odds + 1.96 * error, abs=1e-2)


def test_an_annotator_who_ties_everything_keeps_the_prior_and_changes_no_other_estimate():
    rows = list(simulated(60, seed=8))
    with_ties = fitted([*rows, *(RankingRow(pk, 99, [1, 1], None) for pk in range(60))])
    assert with_ties.reliability[-1] == pytest.approx(crowd_bt.PRIOR, abs=1e-4)
    assert with_ties.reliability[:-1] == pytest.approx(fitted(rows).reliability, abs=1e-4)


def test_a_ranking_of_k_completions_counts_as_k_minus_1_choices():
    votes = votes_of(
        [RankingRow(1, 1, [1, 2, 3, 4], None), RankingRow(2, 1, [1, 2], None), RankingRow(3, 1, [1, 1, 2], None)]
    )
    assert [votes.weight[votes.comparison == pk].sum() for pk in (1, 2, 3)] == pytest.approx([3, 1, 4 / 3])


def test_without_rankings_there_are_no_estimates():
    result = fitted([])
    assert len(result.reliability) == 0
