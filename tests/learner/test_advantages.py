"""Advantages against an oracle that sums in quadratic time, and numbers worked out by hand."""

import pytest
import torch

from training.learner.estimators.dr_grpo import group_centred
from training.learner.estimators.grpo import group_relative
from training.learner.estimators.reinforce import above_baseline
from training.learner.estimators.rloo import leave_one_out
from training.learner.policy.advantages import (
    generalized_advantages,
    token_rewards,
    whiten,
)

LENGTHS = torch.tensor([3, 1, 5])


def oracle(rewards, values, gamma, lam):
    """A_t = Σ_k (γλ)^k (r_{t+k} + γV_{t+k+1} − V_{t+k}) of one completion, term by term."""
    n = len(rewards)
    after = [*values[1:], 0.0]
    deltas = [rewards[t] + gamma * after[t] - values[t] for t in range(n)]
    return [sum((gamma * lam) ** (k - t) * deltas[k] for k in range(t, n)) for t in range(n)]


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 0.7), (1.0, 0.0), (0.99, 1.0)])
def test_gae_equals_the_quadratic_sum_on_ragged_lengths(gamma, lam):
    generator = torch.Generator().manual_seed(0)
    rewards, values = torch.randn(2, 9, generator=generator, dtype=torch.float64)
    advantages, returns = generalized_advantages(rewards, values, LENGTHS, gamma, lam)
    pairs = zip(rewards.split([3, 1, 5]), values.split([3, 1, 5]), strict=True)
    expected = [a for r, v in pairs for a in oracle(r.tolist(), v.tolist(), gamma, lam)]
    assert advantages.tolist() == pytest.approx(expected, abs=1e-12)
    assert returns.tolist() == pytest.approx((advantages + values).tolist(), abs=1e-12)


def test_without_discount_and_bootstrap_it_is_the_reward_to_go_minus_the_value():
    rewards, values = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([0.5, 0.25, 10.0])
    advantages, returns = generalized_advantages(rewards, values, torch.tensor([3]), 1.0, 1.0)
    assert advantages.tolist() == [6.5, 5.75, -6.0]
    assert returns.tolist() == [7.0, 6.0, 4.0]


def test_a_truncated_episode_continues_with_the_value_of_the_state_that_it_stops_in():
    """Numbers by hand with γ = 0.5 and λ = 0.8, of an episode that is truncated, then of the same one that ends.

    δ = 1 + 0.5·4 − 2 = 1 and 3 + 0.5·V − 4 with V = 6 or 0; A_1 = δ_1, A_0 = δ_0 + 0.4·δ_1.
    """
    rewards, values = torch.tensor([1.0, 3.0, 1.0, 3.0]), torch.tensor([2.0, 4.0, 2.0, 4.0])
    final_values = torch.tensor([6.0, 0.0])
    advantages, returns = generalized_advantages(rewards, values, torch.tensor([2, 2]), 0.5, 0.8, final_values)
    assert advantages.tolist() == pytest.approx([1.8, 2.0, 0.6, -1.0])
    assert returns.tolist() == pytest.approx([3.8, 6.0, 2.6, 3.0])


def test_the_score_lands_on_each_last_token_and_kl_on_all():
    kl = torch.tensor([1.0, 2.0, 3.0, 4.0])
    rewards = token_rewards(torch.tensor([10.0, 20.0]), kl, torch.tensor([3, 1]), 0.5)
    assert rewards.tolist() == [-0.5, -1.0, 8.5, 18.0]
    assert kl.tolist() == [1.0, 2.0, 3.0, 4.0]


def test_whitening_leaves_mean_zero_or_its_own_and_deviation_one():
    values = torch.tensor([1.0, 2.0, 3.0, 6.0])
    away = whiten(values)
    assert away.mean() == pytest.approx(0, abs=1e-6) and away.std(correction=0) == pytest.approx(1, abs=1e-6)
    kept = whiten(values, keep_mean=True)
    assert kept.mean() == pytest.approx(3.0) and kept.std(correction=0) == pytest.approx(1, abs=1e-6)
    # by hand: mean 3, variance (4 + 1 + 0 + 9) / 4 = 3.5
    assert away.tolist() == pytest.approx([-2 / 3.5**0.5, -1 / 3.5**0.5, 0, 3 / 3.5**0.5], abs=1e-6)


def test_whitening_equal_values_gives_zero_and_not_nan():
    assert whiten(torch.full([4], 2.0)).tolist() == [0, 0, 0, 0]


def test_whole_completions_are_compared_within_their_prompt():
    rewards = torch.tensor([1.0, 2.0, 6.0, 4.0, 4.0, 4.0])
    assert leave_one_out(rewards, 3, 0.0).tolist() == pytest.approx([-3.0, -1.5, 4.5, 0, 0, 0])
    relative = group_relative(rewards, 3, 0.0)
    deviation = (((-2) ** 2 + (-1) ** 2 + 3**2) / 2) ** 0.5
    assert relative.tolist() == pytest.approx([-2 / deviation, -1 / deviation, 3 / deviation, 0, 0, 0], rel=1e-3)
    assert group_centred(rewards, 3, 0.0).tolist() == pytest.approx([-2, -1, 3, 0, 0, 0])
    assert above_baseline(rewards, 1, 1.5).tolist() == pytest.approx([-0.5, 0.5, 4.5, 2.5, 2.5, 2.5])
