"""Bradley–Terry, its tie models and Plackett–Luce against the published formulas, by hand and by brute force."""

import math
from itertools import permutations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from training.learner.preferences.losses import (
    TIE_MODELS,
    Pairs,
    bradley_terry,
    davidson,
    pair_losses,
    pairs_of_rankings,
    plackett_luce,
    rao_kupper,
    tie_logit_of_share,
)

NO_TIES = torch.tensor(-math.inf, dtype=torch.float64)
DIFFERENCES = torch.tensor([-30.0, -2.0, -0.3, 0.0, 0.3, 1.0, 30.0], dtype=torch.float64)


def one_ranking(ranks: list[int], weight: float = 1.0, margin: float = 0.0, ties: bool = True) -> Pairs:
    return pairs_of_rankings([ranks], [range(len(ranks))], [weight], [margin], ties=ties)


def test_bradley_terry_gives_the_odds_of_the_scores():
    # exp(ln 2) : exp(0) = 2 : 1, so the better one wins two times of three.
    outcome = bradley_terry(torch.tensor(math.log(2.0)), NO_TIES)
    assert outcome.win.exp().item() == pytest.approx(2 / 3)
    assert outcome.loss.exp().item() == pytest.approx(1 / 3)


def test_rao_kupper_gives_the_published_probabilities():
    # π = (2, 1), θ = 3 (t = 1/2): 2/(2+3·1) = 2/5, 1/(1+3·2) = 1/7, (9−1)·2·1/((2+3)(6+1)) = 16/35; the sum is 1.
    outcome = rao_kupper(torch.tensor(math.log(2.0)), torch.tensor(tie_logit_of_share(0.5)))
    assert [o.exp().item() for o in outcome] == pytest.approx([2 / 5, 16 / 35, 1 / 7])


def test_davidson_gives_the_published_probabilities():
    # π = (4, 1), ν = 2 (t = 1/2): 4 : 2·sqrt(4·1) : 1 = 4 : 4 : 1.
    outcome = davidson(torch.tensor(math.log(4.0)), torch.tensor(tie_logit_of_share(0.5)))
    assert [o.exp().item() for o in outcome] == pytest.approx([4 / 9, 4 / 9, 1 / 9])


@pytest.mark.parametrize("model", [rao_kupper, davidson])
@pytest.mark.parametrize("share", [0.01, 0.2, 0.9])
def test_the_three_outcomes_sum_to_one_and_mirror_each_other(model, share):
    logit = torch.tensor(tie_logit_of_share(share), dtype=torch.float64)
    outcome, mirrored = model(DIFFERENCES, logit), model(-DIFFERENCES, logit)
    assert torch.stack(outcome).exp().sum(0).tolist() == pytest.approx([1.0] * len(DIFFERENCES))
    assert mirrored.win.tolist() == pytest.approx(outcome.loss.tolist())
    assert mirrored.tie.tolist() == pytest.approx(outcome.tie.tolist())


@pytest.mark.parametrize("model", [rao_kupper, davidson])
def test_equally_good_completions_tie_with_the_probability_that_the_parameter_says(model):
    outcome = model(torch.zeros(1, dtype=torch.float64), torch.tensor(tie_logit_of_share(0.3), dtype=torch.float64))
    assert outcome.tie.exp().item() == pytest.approx(0.3)


@pytest.mark.parametrize("model", [rao_kupper, davidson])
def test_at_the_limit_of_the_tie_parameter_both_models_are_exactly_bradley_terry(model):
    limit, plain = model(DIFFERENCES, NO_TIES), bradley_terry(DIFFERENCES, NO_TIES)
    assert torch.equal(limit.win, plain.win)
    assert torch.equal(limit.loss, plain.loss)
    assert (limit.tie == -math.inf).all()


@pytest.mark.parametrize("model", TIE_MODELS.values())
def test_extreme_score_differences_do_not_overflow(model):
    difference = torch.tensor([-1e4, 1e4], requires_grad=True)
    logit = torch.tensor(-2.0, requires_grad=True)
    outcome = model(difference, logit)
    (outcome.win + outcome.tie + outcome.loss).sum().backward()
    assert torch.isfinite(torch.stack(outcome)).all()
    assert torch.isfinite(difference.grad).all()
    assert logit.grad is None or torch.isfinite(logit.grad)


@pytest.mark.parametrize("model", TIE_MODELS.values())
def test_gradients_agree_with_finite_differences(model):
    difference = DIFFERENCES[1:-1].clone().requires_grad_()
    logit = torch.tensor(-0.7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda d, z: tuple(model(d, z + 0 * d.sum())), (difference, logit))


def test_a_ranking_gives_each_pair_once_in_the_right_direction():
    pairs = one_ranking([2, 1, 2])
    found = {
        (i, j, t) for i, j, t in zip(pairs.better.tolist(), pairs.worse.tolist(), pairs.tied.tolist(), strict=True)
    }
    assert found == {(1, 0, False), (1, 2, False), (0, 2, True)}


def test_every_ranking_has_the_weight_it_was_given_however_many_completions_it_has():
    pairs = pairs_of_rankings([[1, 2], [1, 2, 3, 3]], [[0, 1], [2, 3, 4, 5]], [1.0, 0.5], [0.0, 0.0])
    totals = torch.zeros(2).index_add(0, pairs.ranking, pairs.weight)
    assert pairs.weight.shape == (1 + 6,)
    assert totals.tolist() == pytest.approx([1.0, 0.5])


def test_left_out_ties_leave_their_weight_to_the_strict_pairs():
    pairs = one_ranking([1, 1, 2], weight=3.0, ties=False)
    assert sorted(zip(pairs.better.tolist(), pairs.worse.tolist(), strict=True)) == [(0, 2), (1, 2)]
    assert pairs.weight.tolist() == pytest.approx([1.5, 1.5])
    assert one_ranking([1, 1], ties=False).better.shape == (0,)


def test_all_pairs_loss_is_the_mean_over_the_pairs_computed_one_by_one():
    scores = [0.5, -1.0, 2.0, 0.1]
    pairs = one_ranking([2, 4, 1, 3])
    total = (pair_losses(torch.tensor(scores), pairs, "bradley_terry", NO_TIES) * pairs.weight).sum().item()
    order = [2, 0, 3, 1]
    by_hand = [math.log(1 + math.exp(scores[b] - scores[a])) for n, a in enumerate(order) for b in order[n + 1 :]]
    assert total == pytest.approx(sum(by_hand) / 6)


def test_equal_scores_cost_ln_2_a_pair():
    pairs = one_ranking([1, 2, 3])
    assert pair_losses(torch.zeros(3), pairs, "rao_kupper", NO_TIES).tolist() == pytest.approx([math.log(2)] * 3)


@pytest.mark.parametrize("tie_model", TIE_MODELS)
def test_a_constant_added_to_all_scores_changes_nothing(tie_model):
    pairs = one_ranking([1, 2, 2, 3])
    scores = torch.tensor([0.3, 0.1, -2.0, 1.0], dtype=torch.float64)
    before = pair_losses(scores, pairs, tie_model, torch.tensor(-1.0))
    assert torch.allclose(pair_losses(scores + 7.5, pairs, tie_model, torch.tensor(-1.0)), before)


@pytest.mark.parametrize("tie_model", TIE_MODELS)
def test_the_loss_of_a_tie_is_least_at_equal_scores(tie_model):
    pairs = one_ranking([1, 1])
    costs = [pair_losses(torch.tensor([d, 0.0]), pairs, tie_model, torch.tensor(-1.0)).item() for d in (-1.0, 0.0, 1.0)]
    assert costs[1] < costs[0]
    assert costs[0] == pytest.approx(costs[2])


def test_a_margin_shifts_strict_pairs_and_leaves_ties_alone():
    pairs = one_ranking([1, 2, 2], margin=0.75)
    losses = pair_losses(torch.tensor([0.75, 0.0, 0.0]), pairs, "bradley_terry", NO_TIES)
    assert losses.tolist() == pytest.approx([math.log(2)] * 3)


def test_several_heads_are_scored_at_once_as_each_alone():
    pairs = one_ranking([1, 2, 2, 3], margin=0.2)
    scores = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    together = pair_losses(scores, pairs, "davidson", torch.tensor(-1.0))
    alone = [pair_losses(scores[:, h], pairs, "davidson", torch.tensor(-1.0)) for h in range(3)]
    assert torch.allclose(together, torch.stack(alone, dim=1))


def test_plackett_luce_is_the_product_of_choices():
    # utilities 3, 2, 1: P = 3/6 · 2/3 · 1/1 = 1/3, over two choices.
    loss = plackett_luce(torch.tensor([math.log(3.0), math.log(2.0), 0.0]))
    assert loss.item() == pytest.approx(math.log(3.0) / 2)


def test_plackett_luce_of_all_orders_sums_to_one():
    scores = torch.tensor([0.4, -1.1, 2.0, 0.0], dtype=torch.float64)
    orders = torch.tensor(list(permutations(range(4))))
    assert (-3 * plackett_luce(scores[orders])).exp().sum().item() == pytest.approx(1.0)


def test_plackett_luce_of_two_is_bradley_terry():
    scores = torch.randn(20, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 10
    expected = -bradley_terry(scores[:, 0] - scores[:, 1], NO_TIES).win
    assert torch.allclose(plackett_luce(scores), expected)


@pytest.mark.parametrize("tie_model", ["rao_kupper", "davidson"])
def test_utilities_and_tie_parameter_are_recovered_as_by_an_independent_fit(tie_model):
    rankings = _drawn_from(utilities=[0.0, 0.7, -0.5, 1.4], tie_share=0.25, count=400)
    pairs = pairs_of_rankings([r for _, r in rankings], [p for p, _ in rankings], [1.0] * 400, [0.0] * 400)
    free = torch.zeros(5, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([free], max_iter=200, line_search_fn="strong_wolfe", tolerance_grad=1e-10)

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        loss = pair_losses(free[:4], pairs, tie_model, free[4]).mean()
        loss.backward()
        return loss

    optimiser.step(closure)
    ours = free.detach().numpy()
    scores, share = _independent_fit(tie_model, pairs)
    assert ours[:4] - ours[0] == pytest.approx(scores, abs=2e-3)
    assert 1 / (1 + math.exp(-ours[4])) == pytest.approx(share, abs=2e-3)


def _drawn_from(utilities: list[float], tie_share: float, count: int) -> list[tuple[list[int], list[int]]]:
    """Pairs (positions, ranks) drawn from Davidson's model in plain numbers."""
    random = np.random.default_rng(0)
    nu, rows = 2 * tie_share / (1 - tie_share), []
    for _ in range(count):
        i, j = random.choice(len(utilities), size=2, replace=False).tolist()
        a, b = math.exp(utilities[i]), math.exp(utilities[j])
        tie = nu * math.sqrt(a * b)
        outcome = random.choice(3, p=np.array([a, tie, b]) / (a + tie + b))
        rows.append(([i, j], [[1, 2], [1, 1], [2, 1]][outcome]))
    return rows


def _independent_fit(tie_model: str, pairs: Pairs) -> tuple[np.ndarray, float]:
    """Maximum likelihood by scipy from the formulas of the papers, in probabilities; the first utility is 0."""
    better, worse, tied = pairs.better.numpy(), pairs.worse.numpy(), pairs.tied.numpy()

    def cost(free: np.ndarray) -> float:
        strength = np.exp(np.concatenate([[0.0], free[:3]]))
        a, b = strength[better], strength[worse]
        if tie_model == "davidson":
            nu = np.exp(free[3])
            tie = nu * np.sqrt(a * b)
            likelihood = np.where(tied, tie, a) / (a + b + tie)
        else:
            theta = 1 + np.exp(free[3])
            likelihood = np.where(
                tied, (theta**2 - 1) * a * b / ((a + theta * b) * (b + theta * a)), a / (a + theta * b)
            )
        return -np.log(likelihood).mean()

    fit = minimize(cost, np.zeros(4), method="BFGS", options={"gtol": 1e-7}).x
    extra = math.exp(fit[3])
    share = extra / (2 + extra)  # ν/(2+ν); and (θ−1)/(θ+1) with θ = 1 + extra: the same expression
    return np.concatenate([[0.0], fit[:3]]), share
