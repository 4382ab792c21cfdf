"""Advantages of completion tokens (GAE): pure functions of tensors.

The tokens of all completions lie end to end, [C]; lengths [N] gives the number of tokens of each completion. Estimators
with one advantage per completion are in training/learner/estimators.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from training.learner.estimators import Algorithm
from training.learner.models.packing import Turn


class EpisodeAdvantages(NamedTuple):
    """One advantage per episode, by an algorithm without a critic."""

    advantages: Tensor  # [N], 0 where there is no estimate
    is_estimated: Tensor  # [N] bool


def token_rewards(scores: Tensor, kl: Tensor, lengths: Tensor, kl_coefficient: float) -> Tensor:
    """Return rewards [C]: −β·kl at every token, plus the completion's score [N] at its last token.

    Ziegler et al. 2019, §2.1: R = r(x, y) − β log(π(y|x) / ρ(y|x)), with the second part token by token.
    """
    rewards = -kl_coefficient * kl
    rewards[lengths.cumsum(0) - 1] += scores
    return rewards


def turn_rewards(turns: Sequence[Sequence[Turn]]) -> Tensor:
    """Return rewards [C]: the environment's reward of each turn at the turn's last token."""
    rows = []
    for episode in turns:
        for turn in episode:
            rows.append(torch.zeros(turn.end - turn.start))
            rows[-1][-1] = turn.reward
    return torch.cat(rows)


def generalized_advantages(
    rewards: Tensor,
    values: Tensor,
    lengths: Tensor,
    gamma: float,
    gae_lambda: float,
    final_values: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return advantages and returns, both [C]: A_t = Σ_k (γλ)^k δ_{t+k}, δ_t = r_t + γV_{t+1} − V_t, returns = A + V.

    Schulman et al. 2016, "High-dimensional continuous control using generalized advantage estimation", equation 16.
    final_values: of the state after the last token, [N]; 0 (also with None) where the episode ends there, the critic's
    value where it is truncated (Pardo et al. 2018, "Time limits in reinforcement learning", §3).
    """
    reward_rows, value_rows = as_rows(rewards, lengths), as_rows(values, lengths)
    next_values = torch.cat([value_rows[:, 1:], value_rows.new_zeros(len(lengths), 1)], 1)
    if final_values is not None:
        next_values[torch.arange(len(lengths)), lengths - 1] = final_values
    deltas = reward_rows + gamma * next_values - value_rows
    advantages = torch.zeros_like(deltas)
    carried = deltas.new_zeros(len(lengths))
    for t in reversed(range(deltas.shape[1])):  # padding is zeros at the end of a row, so it carries 0 into the row
        carried = deltas[:, t] + gamma * gae_lambda * carried
        advantages[:, t] = carried
    flat = advantages[row_mask(lengths)]
    return flat, flat + values


def advantages_of_ended(
    algorithm: Algorithm, rewards: Tensor, truncated: Tensor, group_size: int, baseline: float
) -> EpisodeAdvantages:
    """Return the algorithm's advantages of the episodes that came to their end; the others have no estimate.

    rewards: [N], the episodes of a prompt next to one another. truncated: [N] bool; these rewards are ignored.

    The return of a truncated episode is not known: a time limit says nothing of the task (Pardo et al. 2018, "Time
    limits in reinforcement learning", §3). With a critic it is estimated by bootstrapping. Without one, such an episode
    is left out: it has no advantage, and it is no part of the mean and deviation that the others of its prompt are
    compared with (Kool et al. 2019, Ahmadian et al. 2024 and Shao et al. 2024 take both over samples of known reward;
    Yu et al. 2025, "DAPO", §3.4, leave truncated samples out of the loss, too). A group in which fewer episodes ended
    than the algorithm compares has no estimate.
    """
    assert algorithm.advantages is not None
    advantages = torch.zeros_like(rewards)
    is_estimated = torch.zeros_like(truncated)
    ended = ~truncated
    counts = ended.view(-1, group_size).sum(1).repeat_interleave(group_size)  # [N], ended episodes of the prompt
    for count in counts.unique().tolist():
        if count >= algorithm.min_group_size:
            of_groups = ended & (counts == count)
            advantages[of_groups] = algorithm.advantages(rewards[of_groups], count, baseline)
            is_estimated |= of_groups
    return EpisodeAdvantages(advantages, is_estimated)


def whiten(values: Tensor, keep_mean: bool = False) -> Tensor:
    """Return (x − mean) / deviation over the whole tensor; with keep_mean the mean is added again.

    The variance is that of the population plus 1e-8 (Huang et al. 2024, detail 8). The tensor must not hold padding.
    """
    mean = values.mean()
    whitened = (values - mean) * torch.rsqrt(values.var(correction=0) + 1e-8)
    return whitened + mean if keep_mean else whitened


def as_rows(values: Tensor, lengths: Tensor) -> Tensor:
    """Return [N, L] of values [C], with zeros after each row's end."""
    return pad_sequence(list(values.split(lengths.tolist())), batch_first=True)


def row_mask(lengths: Tensor) -> Tensor:
    """Return a mask [N, L] that is true within each row's length."""
    return torch.arange(int(lengths.max()), device=lengths.device) < lengths[:, None]
