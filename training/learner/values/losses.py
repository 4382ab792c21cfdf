"""Losses and targets of value-based learning over tokens: pure functions of tensors.

A state is a prompt with the beginning of a completion, an action is its next token. The tokens of all completions lie
end to end, [C]; lengths [N] gives the number of tokens of each completion. The reward of a completion comes with its
last token, after which the episode ends, unless it was truncated there.
"""

import torch
from torch import Tensor

MAX_EXPONENT = 5.0  # of the soft value loss; it is linear above, so that one outlier cannot be the whole gradient


def td_targets(
    scores: Tensor,
    values: Tensor,
    lengths: Tensor,
    gamma: float,
    td_lambda: float,
    truncated: Tensor | None = None,
) -> Tensor:
    """Return the targets y [C] of Q: y_t = γ((1 − λ)·V_{t+1} + λ·y_{t+1}), and the score [N] at the last token.

    values: V_t [C], of the state before each token. λ = 0 is Watkins's one-step target (Watkins 1989; with an expectile
    for V Kostrikov et al. 2022, "IQL", equation 6). λ > 0 is Peng's Q(λ) (Peng & Williams 1996; Kozuno et al. 2021),
    which carries a reward to the beginning of a long completion in fewer steps.

    truncated: whether each completion was truncated, [N] bool; None: all ended. Such a dialogue has no reward yet, and
    the state after its last token is not known, so that token has no target and the caller leaves it out of the loss.
    The token before it has the target γ·V: bootstrapping as at a time limit (Pardo et al. 2018, "Time limits in
    reinforcement learning", §3), from the last state whose value is known. In place of the missing target stands V.
    """
    targets = torch.empty_like(values)
    ends = lengths.cumsum(0)
    targets[ends - 1] = scores if truncated is None else torch.where(truncated, values[ends - 1], scores)
    for steps_before_end in range(1, int(lengths.max()) if len(lengths) else 0):
        at = (ends - 1 - steps_before_end)[lengths > steps_before_end]
        targets[at] = gamma * ((1 - td_lambda) * values[at + 1] + td_lambda * targets[at + 1])
    return targets


def expectile_loss(values: Tensor, targets: Tensor, expectile: float) -> Tensor:
    """Return |τ − 1(u < 0)|·u² with u = target − value (Kostrikov et al. 2022, equation 5; Newey & Powell 1987).

    Its minimum is the τ-expectile of the targets: the mean at ½, towards their maximum at 1.
    """
    gaps = targets - values
    return torch.where(gaps < 0, 1 - expectile, expectile) * gaps.square()


def soft_value_loss(values: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """Return exp(z) − z − 1 with z = (target − value)/β, linear above z = 5 (Garg et al. 2023, "XQL", equation 10).

    Its minimum is β·log E[exp(target/β)], the state value of the policy that is best for reward − β·KL.
    """
    z = (targets - values) / temperature
    bounded = z.clamp_max(MAX_EXPONENT)
    return bounded.exp() * (1 + z - bounded) - z - 1


def advantage_weights(advantages: Tensor, temperature: float, max_weight: float) -> Tensor:
    """Return min(exp(A/β), max_weight) (Peng et al. 2019, "AWR", equation 8; Kostrikov et al. 2022, equation 7)."""
    return (advantages / temperature).exp().clamp_max(max_weight)


def effective_share(weights: Tensor) -> float:
    """Return (Σw)² / (n·Σw²): the share of tokens with as much information at equal weights (Kish 1965)."""
    weights = weights.double()
    return float(weights.sum().square() / (len(weights) * weights.square().sum()))
