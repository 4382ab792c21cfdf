"""The bridge between samples of reference and policy: against enumeration and independent computation."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

from training.learner.policy.bridge import Samples, bridged_log_means, likeliest_share, log_weights, markov_lower_bound

BETA = 0.4


@pytest.fixture
def chance():
    return np.random.default_rng(0)


def world(chance, prompts=3, completions=50):
    """The reference's log-probabilities and the rewards of all completions, [prompts, completions]."""
    logits, rewards = chance.normal(size=(2, prompts, completions))
    return logits - logsumexp(logits, axis=1, keepdims=True), rewards


def drawn(chance, model, reference, policy, rewards, count):
    """Samples of one of the models, with their log-ratios."""
    rows = [chance.choice(len(row), count, p=np.exp(row)) for row in model]
    pick = lambda table: torch.tensor(np.stack([table[i, row] for i, row in enumerate(rows)]))  # noqa: E731
    return Samples(pick(rewards), pick(policy - reference))


def normalized(logits):
    return logits - logsumexp(logits, axis=1, keepdims=True)


def test_with_the_best_policy_the_estimate_has_no_error(chance):
    reference, rewards = world(chance)
    policy = normalized(reference + rewards / BETA)
    samples = [drawn(chance, model, reference, policy, rewards, 8) for model in (reference, policy)]
    estimate = bridged_log_means(*samples, BETA)
    assert estimate.values.numpy() == pytest.approx(logsumexp(reference + rewards / BETA, axis=1), abs=1e-6)
    assert estimate.errors.numpy() == pytest.approx(0, abs=1e-6)


def test_equal_rewards_give_their_value_whatever_the_policy_is(chance):
    reference, _ = world(chance)
    policy, rewards = normalized(chance.normal(size=reference.shape) * 3), np.full(reference.shape, 0.7)
    samples = [drawn(chance, model, reference, policy, rewards, 8) for model in (reference, policy)]
    assert bridged_log_means(*samples, BETA).values.numpy() == pytest.approx(0.7 / BETA, abs=1e-6)


def test_the_estimate_is_that_of_its_definition(chance):
    """The jackknife over pairs, with the likeliest mixture found by another optimizer."""
    reference, rewards = world(chance)
    policy = normalized(reference + 0.5 * rewards / BETA + chance.normal(size=rewards.shape))
    first, second = (drawn(chance, model, reference, policy, rewards, 6) for model in (reference, policy))

    def plain(kept, prompt):
        scaled = np.concatenate([first.rewards[prompt][kept], second.rewards[prompt][kept]]) / BETA
        ratios = np.exp(np.concatenate([first.log_ratios[prompt][kept], second.log_ratios[prompt][kept]]))
        likelihood = lambda share: -np.log(1 - share + share * ratios).sum()  # noqa: E731
        share = minimize_scalar(likelihood, bounds=(0, 1), method="bounded", options={"xatol": 1e-10}).x
        return np.log(np.mean(np.exp(scaled) / (1 - share + share * ratios)))

    estimate = bridged_log_means(first, second, BETA)
    for prompt in range(3):
        whole = plain(list(range(6)), prompt)
        parts = np.array([plain([j for j in range(6) if j != i], prompt) for i in range(6)])
        assert float(estimate.values[prompt]) == pytest.approx(6 * whole - 5 * parts.mean(), abs=1e-5)
        assert float(estimate.errors[prompt]) == pytest.approx(math.sqrt(5 * parts.var()), abs=1e-5)


def test_weights_and_mixtures_do_not_overflow():
    ratios = torch.tensor([2000.0, -2000.0, 30.0, -30.0, 0.0], dtype=torch.float64)
    share = likeliest_share(ratios, torch.ones(5, dtype=torch.float64))
    assert 0 < float(share) < 1 and bool(log_weights(ratios, share).isfinite().all())
    assert log_weights(ratios, 0.5)[:2].tolist() == pytest.approx([math.log(2) - 2000, math.log(2)])


def test_the_estimate_of_the_lower_bound_is_unbiased_before_its_logarithm(chance):
    """All pairs of samples of two models over four completions are enumerated."""
    reference, rewards = world(chance, 1, 4)
    policy = normalized(chance.normal(size=(1, 4)))
    mean = 0.0
    for one, other in itertools.product(range(4), repeat=2):
        pair = [
            Samples(torch.tensor([[rewards[0, i]]]), torch.tensor([[(policy - reference)[0, i]]])) for i in (one, other)
        ]
        probability = math.exp(reference[0, one] + policy[0, other])
        mean += probability * math.exp(markov_lower_bound(*pair, BETA, level=0.0) / BETA)
    assert math.log(mean) == pytest.approx(float(logsumexp(reference + rewards / BETA)), abs=1e-9)
