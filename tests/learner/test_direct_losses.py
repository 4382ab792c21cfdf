"""Losses of direct preference learning, beside numbers by hand and by enumeration of all orders."""

import itertools
import math

import pytest
import torch

from training.learner.preferences.direct_losses import davidson_luce, ipo_losses, smoothed_pair_losses
from training.learner.preferences.losses import pairs_of_rankings

NO_TIES = torch.tensor(-math.inf)


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def pair(ranks, margin=0.0):
    return pairs_of_rankings([ranks], [[0, 1]], [1.0], [margin])


def test_dpo_of_a_pair_by_hand():
    """β = 0.1; log-ratios 3 and −2 nats: −log sigmoid(0.1 · 5) = 0.474."""
    rewards = 0.1 * torch.tensor([3.0, -2.0])
    (loss,) = smoothed_pair_losses(rewards, pair([1, 2]), "davidson", NO_TIES).tolist()
    assert loss == pytest.approx(0.47407698, abs=1e-6)
    (loss,) = smoothed_pair_losses(rewards, pair([2, 1], margin=0.5), "bradley_terry", NO_TIES).tolist()
    assert loss == pytest.approx(-math.log(sigmoid(-0.5 - 0.5)), abs=1e-6)


def test_label_smoothing_mixes_the_loss_with_that_of_the_other_label():
    rewards = torch.tensor([0.4, -0.2])
    (loss,) = smoothed_pair_losses(rewards, pair([1, 2], margin=0.1), "bradley_terry", NO_TIES, 0.2).tolist()
    assert loss == pytest.approx(-0.8 * math.log(sigmoid(0.5)) - 0.2 * math.log(sigmoid(-0.5)), abs=1e-6)


@pytest.mark.parametrize("tie_model", ["davidson", "rao_kupper", "bradley_terry"])
def test_a_tie_is_the_same_with_a_smoothed_label(tie_model):
    rewards, logit = torch.tensor([0.4, -0.2]), torch.tensor(-1.0)
    plain, smoothed = (smoothed_pair_losses(rewards, pair([1, 1]), tie_model, logit, e) for e in (0.0, 0.3))
    assert plain.item() == pytest.approx(smoothed.item(), abs=1e-6)


def test_ipo_by_hand():
    """τ = 0.5, so the target of h is 1; log-ratios 1.5 and 0.2: (1.3 − 1)², flipped (1.3 + 1)², tied 1.3²."""
    rewards = 0.5 * torch.tensor([1.5, 0.2])
    for ranks, smoothing, expected in (
        ([1, 2], 0.0, 0.09), ([2, 1], 0.0, 5.29), ([1, 1], 0.0, 1.69), ([1, 2], 0.25, 0.75 * 0.09 + 0.25 * 5.29),
    ):  # fmt: skip
        assert ipo_losses(rewards, pair(ranks), 0.5, smoothing).item() == pytest.approx(expected, abs=1e-5)


def weak_orders(count):
    """Return all dense ranks of `count` items, 13 for 3 and 75 for 4."""
    return [r for r in itertools.product(range(1, count + 1), repeat=count) if set(r) == set(range(1, max(r) + 1))]


def strength(rewards, chosen, nu):
    """Return δ_n·(Π exp r)^(1/n) of a choice of n items."""
    return nu ** (len(chosen) - 1) * math.exp(sum(rewards[i] for i in chosen) / len(chosen))


def probability(rewards, ranks, nu):
    """Return the probability of a weak order by the model's definition: a product over choices from all subsets."""
    left, result = set(range(len(ranks))), 1.0
    for rank in sorted(set(ranks)):
        chosen = {i for i in left if ranks[i] == rank}
        subsets = [s for n in range(1, len(left) + 1) for s in itertools.combinations(sorted(left), n)]
        result *= strength(rewards, chosen, nu) / sum(strength(rewards, subset, nu) for subset in subsets)
        left -= chosen
    return result


def loss_of(rewards, ranks, logit):
    order = sorted(range(len(ranks)), key=lambda i: ranks[i])
    ordered = torch.tensor([[rewards[i] for i in order]], dtype=torch.float64)
    return davidson_luce(
        ordered, torch.tensor([[ranks[i] for i in order]]), torch.tensor(logit, dtype=torch.float64)
    ).item()


@pytest.mark.parametrize("count", [3, 4])
def test_the_loss_of_a_ranking_is_that_of_all_its_choices_and_weak_orders_sum_to_one(count):
    rewards, logit = [0.7, -1.2, 0.1, 2.0][:count], -0.4
    nu = 2 * sigmoid(logit) / (1 - sigmoid(logit))
    orders = weak_orders(count)
    assert len(orders) == {3: 13, 4: 75}[count]
    found = [math.exp(-(count - 1) * loss_of(rewards, ranks, logit)) for ranks in orders]
    assert found == pytest.approx([probability(rewards, ranks, nu) for ranks in orders], rel=1e-9)
    assert sum(found) == pytest.approx(1, abs=1e-9)


def test_without_ties_it_is_plackett_luce_by_hand():
    """Scores log 3, log 2, log 1, best first: 3/6 · 2/3 · 1."""
    rewards = [[math.log(3), math.log(2), 0.0]]
    loss = davidson_luce(torch.tensor(rewards), torch.tensor([[1, 2, 3]]), NO_TIES)
    assert loss.item() == pytest.approx(-math.log(1 / 3) / 2, abs=1e-6)


def test_for_a_pair_it_is_davidsons_model():
    rewards, logit = [0.3, -0.4], -0.8
    for ranks in ([1, 2], [2, 1], [1, 1]):
        pairs = smoothed_pair_losses(torch.tensor(rewards), pair(ranks), "davidson", torch.tensor(logit))
        assert loss_of(rewards, ranks, logit) == pytest.approx(pairs.item(), abs=1e-6)


@pytest.mark.parametrize("ranks", [[1, 2, 3, 4, 5, 6, 7, 8, 9], [1, 1, 2, 3, 3, 3, 4, 5, 5]])
def test_nine_completions_and_rewards_far_apart_have_finite_gradients(ranks):
    rewards = torch.linspace(60, -60, 9)[None].requires_grad_()
    logit = torch.tensor(-1.0, requires_grad=True) if len(set(ranks)) < 9 else NO_TIES
    davidson_luce(rewards, torch.tensor([ranks]), logit).sum().backward()
    assert rewards.grad.isfinite().all() and abs(float(rewards.grad.sum())) < 1e-3  # a constant changes nothing
    assert logit.grad is None or logit.grad.isfinite()


def test_its_gradient_is_that_of_finite_differences():
    rewards = torch.tensor([[0.7, 0.1, -0.3, -1.2]], dtype=torch.float64, requires_grad=True)
    logit = torch.tensor(-0.4, dtype=torch.float64, requires_grad=True)
    ranks = torch.tensor([[1, 2, 2, 3]])
    assert torch.autograd.gradcheck(lambda r, t: davidson_luce(r, ranks, t), (rewards, logit))
