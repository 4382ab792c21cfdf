"""Losses of policy optimisation per token: pure functions of tensors of one shape, in nats.

Callers sum them over completion tokens and divide by the number of tokens of the whole minibatch over all processes. So
a token has the same weight in any micro-batch, process or completion.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class PolicyLoss(NamedTuple):
    """Per-token loss, same shape as the inputs."""

    loss: Tensor
    clipped: Tensor  # bool: the clip range is active, so the token gives no gradient


def clipped_policy_loss(
    new: Tensor,
    old: Tensor,
    advantages: Tensor,
    clip_ratio: float,
    dual_clip: float = 0.0,
    clip_ratio_high: float = 0.0,
) -> PolicyLoss:
    """Return −min(ρA, clip(ρ, 1 ± ε)A) with ρ = exp(new − old): Schulman et al. 2017, "PPO", equation 7.

    With clip_ratio_high the upper bound is 1 + clip_ratio_high (Yu et al. 2025, "DAPO", §3.1, clip-higher).
    With dual_clip c > 1 the objective of a negative advantage is bounded below by cA (Ye et al. 2020, "Mastering
    complex control in MOBA games", equation 5). `new` and `old` are log-probs.
    """
    ratio = (new - old).exp()
    highest = 1 + (clip_ratio_high or clip_ratio)
    unclipped, bounded = -advantages * ratio, -advantages * ratio.clamp(1 - clip_ratio, highest)
    loss = torch.maximum(unclipped, bounded)
    if dual_clip:
        loss = torch.where(advantages < 0, torch.minimum(loss, -advantages * dual_clip), loss)
    return PolicyLoss(loss, bounded > unclipped)


def sequence_log_ratios(new: Tensor, old: Tensor, lengths: list[int]) -> Tensor:
    """Return for every token the mean of new − old over its completion, [C].

    Its exponential is the ratio of two sequences' probabilities, to the power 1 / length: Zheng et al. 2025, "Group
    sequence policy optimization", equation 7. lengths: number of tokens of each completion.
    """
    means = torch.stack([part.mean() for part in (new - old).split(lengths)])
    return means.repeat_interleave(torch.tensor(lengths, device=means.device))


def clipped_value_loss(new: Tensor, old: Tensor, returns: Tensor, clip_value: float = 0.0) -> Tensor:
    """Return ½ max((V − R)², (V_clipped − R)²), with V_clipped within clip_value of the old value; 0: ½ (V − R)².

    Huang et al. 2022, "The 37 implementation details of PPO", detail 9, with the ½ of the original code.
    """
    loss = (new - returns).square()
    if clip_value:
        bounded = old + (new - old).clamp(-clip_value, clip_value)
        loss = torch.maximum(loss, (bounded - returns).square())
    return loss / 2


def kl_k1(policy: Tensor, other: Tensor) -> Tensor:
    """Return log π(a) − log μ(a): unbiased for KL(π‖μ) if a is sampled from π; of either sign (Schulman 2020, k1)."""
    return policy - other


def kl_k3(policy: Tensor, other: Tensor) -> Tensor:
    """Return r − 1 − log r with r = μ(a) / π(a): unbiased for KL(π‖μ) if a is sampled from π, never negative.

    Schulman 2020, "Approximating KL divergence", k3. As a loss (GRPO, Shao et al. 2024, equation 4) its gradient over
    actions sampled from π is Σ π (1 − r) ∇log π, which is that of KL(μ‖π). So the optimum of a run with kl_placement
    "loss" is not the π* of optimality.py; with the penalty in the reward it is.
    """
    log_ratio = other - policy
    return log_ratio.expm1() - log_ratio


def next_kl_coefficient(coefficient: float, kl: float, target: float, horizon: int, episodes: int) -> float:
    """Return the adaptive coefficient after a batch: β (1 + clip(kl / target − 1, ±0.2) · episodes / horizon).

    Ziegler et al. 2019, "Fine-tuning language models from human preferences", §2.2. kl and target: nats per completion.
    """
    error = min(max(kl / target - 1, -0.2), 0.2)
    return coefficient * (1 + error * episodes / horizon)
