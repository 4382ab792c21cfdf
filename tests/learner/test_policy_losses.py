"""The losses of PPO against numbers worked out by hand and against exact divergences."""

import math

import pytest
import torch

from training.learner.policy.losses import clipped_policy_loss, clipped_value_loss, kl_k1, kl_k3, next_kl_coefficient


def policy_loss(ratio, advantage, **options):
    old = torch.tensor([-1.0], dtype=torch.float64)
    new = old + math.log(ratio)
    new.requires_grad_()
    result = clipped_policy_loss(new, old, torch.tensor([advantage], dtype=torch.float64), 0.2, **options)
    (gradient,) = torch.autograd.grad(result.loss.sum(), new)
    return result.loss.item(), bool(result.clipped), gradient.item()


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "clipped"),
    [
        (1.0, 2.0, -2.0, False),
        (1.1, 2.0, -2.2, False),
        (1.5, 2.0, -2.4, True),  # min(3.0, 1.2 * 2)
        (0.5, 2.0, -1.0, False),  # moving back is never clipped
        (0.5, -2.0, 1.6, True),  # min(-1.0, 0.8 * -2)
        (1.5, -2.0, 3.0, False),
    ],
)
def test_a_ratio_outside_the_clip_range_gives_no_gradient(ratio, advantage, loss, clipped):
    value, was_clipped, gradient = policy_loss(ratio, advantage)
    assert value == pytest.approx(loss) and was_clipped is clipped
    assert gradient == pytest.approx(0 if clipped else -advantage * ratio)


def test_an_upper_clip_range_of_its_own_holds_above_only():
    # By hand, 0.2 below and 0.5 above: min(1.4 · 2, 1.5 · 2), min(1.6 · 2, 1.5 · 2), min(0.7 · −2, 0.8 · −2).
    assert policy_loss(1.4, 2.0, clip_ratio_high=0.5)[:2] == (pytest.approx(-2.8), False)
    assert policy_loss(1.6, 2.0, clip_ratio_high=0.5)[:2] == (pytest.approx(-3.0), True)
    assert policy_loss(0.7, -2.0, clip_ratio_high=0.5)[:2] == (pytest.approx(1.6), True)


def test_dual_clip_bounds_the_loss_of_a_bad_token():
    assert policy_loss(10.0, -2.0)[0] == pytest.approx(20.0)
    value, _, gradient = policy_loss(10.0, -2.0, dual_clip=3.0)
    assert value == pytest.approx(6.0) and gradient == 0
    assert policy_loss(10.0, 2.0, dual_clip=3.0)[0] == policy_loss(10.0, 2.0)[0]


def test_the_value_loss_is_the_larger_of_the_clipped_and_the_unclipped_one():
    old, returns = torch.zeros(3), torch.tensor([1.0, 1.0, -1.0])
    loss = clipped_value_loss(torch.tensor([0.1, 0.9, 0.9]), old, returns, 0.2)
    # ½ (0.1 − 1)²; the bounded 0.2 is the worse one: ½ (0.2 − 1)²; the unbounded 0.9 is: ½ (0.9 + 1)²
    assert loss.tolist() == pytest.approx([0.405, 0.32, 1.805])
    assert clipped_value_loss(torch.tensor([0.9]), old[:1], returns[:1]).item() == pytest.approx(0.005)


def test_both_estimators_have_the_exact_divergence_as_their_mean():
    p, q = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64), torch.tensor([0.2, 0.2, 0.6], dtype=torch.float64)
    exact = 0.5 * math.log(2.5) + 0.3 * math.log(1.5) + 0.2 * math.log(1 / 3)
    assert (p * kl_k1(p.log(), q.log())).sum().item() == pytest.approx(exact)
    assert (p * kl_k3(p.log(), q.log())).sum().item() == pytest.approx(exact)
    assert (kl_k3(p.log(), q.log()) >= 0).all() and (kl_k1(p.log(), q.log()) < 0).any()


def test_k3_as_a_loss_has_the_gradient_of_the_divergence_the_other_way_round():
    logits = torch.tensor([0.3, -1.0, 2.0, 0.1], dtype=torch.float64, requires_grad=True)
    other = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
    drawn_from = logits.detach().softmax(-1)
    loss = (drawn_from * kl_k3(logits.log_softmax(-1), other.log())).sum()
    reverse = (other * (other.log() - logits.log_softmax(-1))).sum()
    (found,), (expected,) = (torch.autograd.grad(value, logits) for value in (loss, reverse))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(("kl", "factor"), [(6.0, 1.0), (6.6, 1.01), (60.0, 1.02), (0.0, 0.98)])
def test_the_coefficient_follows_the_target_by_bounded_steps(kl, factor):
    # with 1,000 of 10,000 episodes the relative error, cut at ±0.2, counts a tenth
    assert next_kl_coefficient(0.5, kl, 6.0, 10_000, 1_000) == pytest.approx(0.5 * factor)
