"""The losses of policy optimisation, each token's own: pure functions of tensors of one shape, in nats.

Callers sum them over completion tokens and divide by the tokens of the whole minibatch over all processes, so that a
token weighs the same whatever micro-batch, process or completion it is in.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class PolicyLoss(NamedTuple):
    """Of each token, all of the inputs' shape."""

    loss: Tensor
    clipped: Tensor  # bool: the ratio earns nothing more in the direction the advantage asks for


def clipped_policy_loss(
    new: Tensor, old: Tensor, advantages: Tensor, clip_ratio: float, dual_clip: float = 0.0
) -> PolicyLoss:
    """−min(ρA, clip(ρ, 1 ± ε)A) with ρ = exp(new − old): Schulman et al. 2017, «PPO», equation 7.

    With dual_clip c > 1 the objective of a negative advantage is bounded below by cA (Ye et al. 2020, «Mastering
    complex control in MOBA games», equation 5). `new` and `old` are log-probabilities.
    """
    ratio = (new - old).exp()
    unclipped, bounded = -advantages * ratio, -advantages * ratio.clamp(1 - clip_ratio, 1 + clip_ratio)
    loss = torch.maximum(unclipped, bounded)
    if dual_clip:
        loss = torch.where(advantages < 0, torch.minimum(loss, -advantages * dual_clip), loss)
    return PolicyLoss(loss, bounded > unclipped)


def clipped_value_loss(new: Tensor, old: Tensor, returns: Tensor, clip_value: float = 0.0) -> Tensor:
    """½ max((V − R)², (V_clipped − R)²), V_clipped being within clip_value of the old value; 0: ½ (V − R)².

    Huang et al. 2022, «The 37 implementation details of PPO», detail 9, with the ½ of the original code.
    """
    loss = (new - returns).square()
    if clip_value:
        bounded = old + (new - old).clamp(-clip_value, clip_value)
        loss = torch.maximum(loss, (bounded - returns).square())
    return loss / 2


def kl_k1(policy: Tensor, other: Tensor) -> Tensor:
    """log π(a) − log μ(a): unbiased for KL(π‖μ) when a is drawn from π; of either sign (Schulman 2020, k1)."""
    return policy - other


def kl_k3(policy: Tensor, other: Tensor) -> Tensor:
    """r − 1 − log r with r = μ(a) / π(a): unbiased for KL(π‖μ) when a is drawn from π, never negative.

    Schulman 2020, «Approximating KL divergence», k3. As a loss (GRPO's, Shao et al. 2024, equation 4) its gradient
    over actions drawn from π is Σ π (1 − r) ∇log π, that of KL(μ‖π). So what a run with kl_placement loss comes to is
    not the π* that optimality.py speaks of; with the penalty in the reward it is.
    """
    log_ratio = other - policy
    return log_ratio.expm1() - log_ratio


def next_kl_coefficient(coefficient: float, kl: float, target: float, horizon: int, episodes: int) -> float:
    """The adaptive coefficient after a batch: β (1 + clip(kl / target − 1, ±0.2) · episodes / horizon).

    Ziegler et al. 2019, «Fine-tuning language models from human preferences», §2.2. kl and target: nats a completion.
    """
    error = min(max(kl / target - 1, -0.2), 0.2)
    return coefficient * (1 + error * episodes / horizon)
