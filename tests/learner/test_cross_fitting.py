"""Cross-fitted surprise of rankings: heads, folds, and wrong rankings in a simulated world."""

import dataclasses
import itertools
import math
import random

import numpy as np
import pytest
import torch
from scipy import optimize

from training.learner.models.packing import PromptGroup
from training.learner.preferences import cross_fitting
from training.learner.preferences.cross_fitting import Differences, fitted_head, folds_of, standardised, surprises
from training.learner.preferences.ranking_data import Comparison, Ranking

WIDTH = 6


def comparison(number, ranks, row, prompt=None):
    completions = tuple((number, place) for place in range(len(ranks)))
    ranking = Ranking(tuple(ranks), tuple(range(len(ranks))), "ann", 1.0, None, row=row)
    return Comparison(number, PromptGroup((9, number if prompt is None else prompt), completions), (ranking,))


def world(count, seed, flipped=(), size=4):
    """Comparisons whose annotators choose by a linear utility with Gumbel noise; some of them are turned round."""
    draw = random.Random(seed)
    features, comparisons = [], []
    for number in range(count):
        of_completions = [[draw.gauss(0, 1) for _ in range(WIDTH)] for _ in range(size)]
        perceived = [2 * one[0] - one[1] - math.log(draw.expovariate(1.0)) for one in of_completions]
        ranks = [1 + sum(other > value for other in perceived) for value in perceived]
        ranks = [size + 1 - rank for rank in ranks] if number in flipped else ranks
        comparisons.append(comparison(number, ranks, row=number + 1))
        features += of_completions
    return comparisons, torch.tensor(features)


def reversed_ranking(one):
    (ranking,) = one.rankings
    ranks = tuple(max(ranking.ranks) + 1 - rank for rank in ranking.ranks)
    return dataclasses.replace(one, rankings=(dataclasses.replace(ranking, ranks=ranks),))


def test_the_head_is_that_of_a_general_optimiser():
    draw = np.random.default_rng(0)
    x, weight = draw.normal(size=(40, WIDTH)), draw.uniform(0.2, 2, 40)
    pairs = Differences(torch.tensor(x), torch.tensor(weight), torch.arange(40))

    def loss(head):
        return (weight * np.logaddexp(0, -x @ head)).sum() + 3 * (head**2).sum() / 2

    best = optimize.minimize(loss, np.zeros(WIDTH), method="BFGS", options={"gtol": 1e-9})
    assert fitted_head(pairs, 3.0).numpy() == pytest.approx(best.x, abs=1e-6)


def test_the_surprise_is_the_mean_log_odds_of_the_other_order_without_ties():
    comparisons, features = world(12, seed=1)
    ranks = (1, 2, 2, 3)
    comparisons[0] = comparison(0, ranks, row=1)
    comparisons[1] = comparison(1, (1, 1, 1, 1), row=2)
    found = surprises(comparisons, [], features, folds=3, seed=0)
    assert sorted(found) == [1, *range(3, 13)]  # a ranking of ties alone has none
    # by hand: the head of the other folds, whose penalty is chosen on the next fold
    fold, x = folds_of(comparisons, 3, 0), standardised(features)

    def pairs_in(*numbers):
        rows, weights = [], []
        for number in (n for n in range(12) if fold[n] in numbers):
            order = comparisons[number].rankings[0].ranks
            strict = [(i, j) for i, j in itertools.permutations(range(4), 2) if order[i] < order[j]]
            rows += [x[4 * number + i] - x[4 * number + j] for i, j in strict]
            weights += [1 / len(strict) for _ in strict]
        return Differences(torch.stack(rows), torch.tensor(weights, dtype=torch.float64), torch.arange(len(rows)))

    mine, following, last = fold[0], (fold[0] + 1) % 3, (fold[0] + 2) % 3
    validation = pairs_in(following)

    def inner_loss(penalty):
        log_odds = validation.features @ fitted_head(pairs_in(last), penalty)
        return float((validation.weight * torch.log1p((-log_odds).exp())).sum())

    head = fitted_head(pairs_in(following, last), min(cross_fitting.PENALTIES, key=inner_loss))
    scores = (x[:4] @ head).tolist()
    strict = [(i, j) for i, j in itertools.permutations(range(4), 2) if ranks[i] < ranks[j]]
    assert len(strict) == 5 and mine == fold[0]
    assert found[1] == pytest.approx(sum(scores[j] - scores[i] for i, j in strict) / 5, abs=1e-5)


def test_no_head_learns_from_the_rankings_of_its_prompt():
    comparisons, features = world(20, seed=2)
    # the same prompt under another id, and a held-out ranking
    comparisons[7] = comparison(7, comparisons[7].rankings[0].ranks, row=8, prompt=3)
    train, held_out = comparisons[:17], comparisons[17:]
    before = surprises(train, held_out, features, folds=4, seed=5)
    changed = [reversed_ranking(one) if number in (3, 7) else one for number, one in enumerate(train)]
    after = surprises(changed, [reversed_ranking(one) for one in held_out], features, folds=4, seed=5)
    for row in (4, 8):
        assert after[row] == pytest.approx(-before[row], abs=1e-9)
    others = [row for row in before if row not in (4, 8)]
    assert any(abs(abs(after[row]) - abs(before[row])) > 1e-6 for row in others)


def test_rankings_turned_round_are_at_the_top_of_the_list():
    flipped = set(random.Random(3).sample(range(300), 30))
    comparisons, features = world(300, seed=3, flipped=flipped)
    found = surprises(comparisons[:240], comparisons[240:], features, folds=5, seed=0)
    assert len(found) == 300
    top = sorted(found, key=lambda row: -found[row])[:30]
    assert sum(row - 1 in flipped for row in top) >= 20  # two thirds; by chance 3


def ranked_again(one, ranks, row, weight=1.0):
    """Add a ranking by another person to a comparison."""
    first = one.rankings[0]
    second = dataclasses.replace(first, ranks=tuple(ranks), annotator="cole", weight=weight, row=row)
    return dataclasses.replace(one, rankings=(first, second))


def test_votes_are_the_weights_of_the_other_rankings_for_and_against_a_pair():
    one = ranked_again(comparison(0, (1, 2, 3), row=1), (1, 3, 2), row=2, weight=0.5)
    one = dataclasses.replace(one, rankings=(*one.rankings, dataclasses.replace(one.rankings[1], ranks=(2, 2, 1))))
    # pairs of the first (01, 02, 12), of the second (01, 02, 21), of the third (20, 21; a tie is no pair)
    votes = cross_fitting.votes_of_others([one, comparison(1, (1, 2), row=3)])
    assert votes.tolist() == [0.5, 0.5 - 0.5, -0.5 - 0.5, 1.0, 1.0 - 0.5, 0.5 - 1.0, -1.0 - 0.5, 0.5 - 1.0, 0.0]


def test_the_worth_of_a_vote_is_that_of_a_general_optimiser_and_never_negative():
    draw = np.random.default_rng(1)
    odds, votes, weight = draw.normal(1, 1, 60), draw.integers(-1, 3, 60).astype(float), draw.uniform(0.2, 2, 60)

    def loss(worth):
        return (weight * np.logaddexp(0, -(odds + worth * votes))).sum() + worth**2 / 2

    best = optimize.minimize_scalar(loss, bounds=(0, 8), method="bounded", options={"xatol": 1e-10})
    arguments = [torch.tensor(values) for values in (odds, votes, weight)]
    found = cross_fitting.worth_of_a_vote(*arguments)
    assert found == pytest.approx(best.x, abs=1e-5) and found > 0.1
    assert cross_fitting.worth_of_a_vote(arguments[0], -arguments[1], arguments[2]) == 0.0


def test_a_ranking_that_another_one_of_its_comparison_opposes_is_more_surprising():
    flipped = set(random.Random(3).sample(range(300), 30))
    comparisons, features = world(300, seed=4, flipped=flipped, size=2)
    alone = surprises(comparisons, [], features, folds=5, seed=0)
    honest, _ = world(300, seed=4, size=2)
    again = [ranked_again(one, honest[n].rankings[0].ranks, row=1000 + n) for n, one in enumerate(comparisons)]
    both = surprises(again, [], features, folds=5, seed=0)

    def flipped_at_the_top(values):
        return sum(row - 1 in flipped for row in sorted(range(1, 301), key=lambda row: -values[row])[:30])

    assert flipped_at_the_top(both) >= flipped_at_the_top(alone) + 5


def test_a_prompt_is_in_one_fold_and_folds_are_about_equal():
    comparisons = [comparison(number, (1, 2), row=number, prompt=number // 2) for number in range(40)]
    fold = folds_of(comparisons, 4, seed=1)
    assert fold[::2] == fold[1::2]
    assert [fold.count(number) for number in range(4)] == [10] * 4


def test_too_few_prompts_have_no_surprise():
    comparisons, features = world(2, seed=0)
    assert surprises(comparisons, [], features, folds=5, seed=0) == {}
    assert surprises([], comparisons, features, folds=5, seed=0) == {}


def test_wide_features_become_their_principal_components(monkeypatch):
    monkeypatch.setattr(cross_fitting, "MAX_COMPONENTS", 2)
    draw = torch.Generator().manual_seed(0)
    hidden = torch.randn(50, 2, generator=draw, dtype=torch.float64)
    wide = hidden @ torch.randn(2, 5, generator=draw, dtype=torch.float64)  # five columns of two dimensions
    full = (wide - wide.mean(0)) / wide.std(0, correction=0)
    components = standardised(wide)
    assert components.shape == (50, 2)
    assert torch.allclose(components @ components.T, full @ full.T)  # distances and angles stay
