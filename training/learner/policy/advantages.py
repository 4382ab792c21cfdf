"""Advantages, of completion tokens or of whole completions: pure functions of tensors.

Tokens of all completions lie end to end, [C]; lengths [N] says whose are whose. A whole completion's reward is one
number, and completions of one prompt stand together, `each` of them: [N] with N a multiple of `each`. An estimator of
whole completions is one function here, and its name in ESTIMATORS.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence


def token_rewards(scores: Tensor, kl: Tensor, lengths: Tensor, kl_coefficient: float) -> Tensor:
    """[C]: −β·kl at every token, and the completion's score [N] besides at its last.

    Ziegler et al. 2019, §2: R = r(x, y) − β log(π(y|x) / ρ(y|x)), the second part token by token.
    """
    rewards = -kl_coefficient * kl
    rewards[lengths.cumsum(0) - 1] += scores
    return rewards


def generalized_advantages(
    rewards: Tensor, values: Tensor, lengths: Tensor, gamma: float, gae_lambda: float
) -> tuple[Tensor, Tensor]:
    """Advantages and returns, both [C]: A_t = Σ_k (γλ)^k δ_{t+k}, δ_t = r_t + γV_{t+1} − V_t, returns = A + V.

    Schulman et al. 2016, «High-dimensional continuous control using generalized advantage estimation», equation 16. The
    value after the last token of a completion is 0: the episode is over there, cut off or not.
    """
    reward_rows, value_rows = as_rows(rewards, lengths), as_rows(values, lengths)
    after = torch.cat([value_rows[:, 1:], value_rows.new_zeros(len(lengths), 1)], 1)
    deltas = reward_rows + gamma * after - value_rows
    advantages = torch.zeros_like(deltas)
    carried = deltas.new_zeros(len(lengths))
    for t in reversed(range(deltas.shape[1])):  # padding is all zeros and last, so it carries 0 into a row's end
        carried = deltas[:, t] + gamma * gae_lambda * carried
        advantages[:, t] = carried
    flat = advantages[row_mask(lengths)]
    return flat, flat + values


def whiten(values: Tensor, keep_mean: bool = False) -> Tensor:
    """(x − mean) / deviation over all of the tensor, the mean put back if it is kept.

    The variance is that of the population, with 1e-8 added to it (Huang et al. 2024, detail 8). All values count: what
    is padding or another's must not be in the tensor.
    """
    mean = values.mean()
    whitened = (values - mean) * torch.rsqrt(values.var(correction=0) + 1e-8)
    return whitened + mean if keep_mean else whitened


def leave_one_out(rewards: Tensor, each: int, baseline: float) -> Tensor:
    """[N]: r_i − mean of its prompt's other rewards. Kool et al. 2019; Ahmadian et al. 2024, «Back to basics», §3.3."""
    groups = rewards.view(-1, each)
    return (groups - (groups.sum(1, keepdim=True) - groups) / (each - 1)).flatten()


def group_relative(rewards: Tensor, each: int, baseline: float) -> Tensor:
    """[N]: (r_i − mean) / (deviation + 1e-4) of its prompt's rewards. Shao et al. 2024, «DeepSeekMath», §4.1.2."""
    groups = rewards.view(-1, each)
    return ((groups - groups.mean(1, keepdim=True)) / (groups.std(1, keepdim=True) + 1e-4)).flatten()


def above_baseline(rewards: Tensor, each: int, baseline: float) -> Tensor:
    """[N]: r_i − baseline, not of this reward alone. Williams 1992, «REINFORCE», §4."""
    return rewards - baseline


ESTIMATORS: dict[str, Callable[[Tensor, int, float], Tensor]] = {
    "rloo": leave_one_out,
    "grpo": group_relative,
    "reinforce": above_baseline,
}


def as_rows(values: Tensor, lengths: Tensor) -> Tensor:
    """[N, L] from [C], zeros after each row's end."""
    return pad_sequence(list(values.split(lengths.tolist())), batch_first=True)


def row_mask(lengths: Tensor) -> Tensor:
    """[N, L]: true within each row's length."""
    return torch.arange(int(lengths.max()), device=lengths.device) < lengths[:, None]
