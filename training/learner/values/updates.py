"""Gradients of the values and of the policy on a batch of the replay buffer, and the weights between the two."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from training.learner.models.generic_forward import shares_prompts
from training.learner.models.loading import computing_in
from training.learner.models.oom_retry import MicroBatches
from training.learner.models.packing import Episodes, by_episode, pack_episodes, within_budget
from training.learner.models.token_outputs import score_tokens
from training.learner.runtime.config import QConfig
from training.learner.runtime.processes import Processes
from training.learner.text.messages import share
from training.learner.values.losses import advantage_weights, expectile_loss, soft_value_loss, td_targets
from training.learner.values.network import StateOutputs, ValueNetwork
from training.learner.values.replay import ReplayBuffer

VALUE_METRICS = ("td_loss", "state_value_loss", "conservative_loss", "q_mean", "value_mean")  # means over tokens


class ValueContext(NamedTuple):
    """Settings, processes and the networks of a q run; nothing in it changes but weights."""

    settings: QConfig
    processes: Processes
    policy: Any
    values: ValueNetwork
    target: ValueNetwork  # moving average of `values`
    micro_batches: MicroBatches


class WeightedTokens(NamedTuple):
    """Weights of the likelihood of the buffer's tokens: one tensor per completion.

    The last one of a truncated dialogue is not used.
    """

    weights: list[Tensor]
    mean: float  # over all tokens of the buffer that are a part of the losses


def value_batch(context: ValueContext, buffer: ReplayBuffer, batch: Sequence[int], learns: bool = True) -> list[float]:
    """Return VALUE_METRICS of a batch; with `learns`, add up the gradient of the loss over all processes."""
    settings, tokens = context.settings, buffer.tokens(batch)

    def work(part: Sequence[int]) -> Tensor:
        with computing_in(settings.dtype):
            loss, metrics = value_loss(context, buffer, part)
        if learns:
            (loss / tokens).backward()
        return metrics

    sums = over_parts(context, context.values, buffer, batch, work, learns, len(VALUE_METRICS))
    return (sums / tokens).tolist()


def value_loss(context: ValueContext, buffer: ReplayBuffer, part: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return the summed loss of the tokens of a part, and the sums of VALUE_METRICS."""
    settings, episodes = context.settings, buffer.episodes.select(part)
    lengths = torch.tensor(episodes.policy_lengths())
    batch = pack_episodes(episodes, context.values.trunk.device)
    outputs = context.values.read(batch)
    with torch.no_grad():
        slow = context.target.read(batch)
        slow_q = context.target.action_values(slow, slow.tokens).amin(0)
        following = next_values(context, outputs, slow)
        rewards = buffer.rewards[list(part)].to(following.device)
        truncated = torch.tensor(episodes.truncated(), device=following.device)
        targets = td_targets(
            rewards, following, lengths.to(following.device), settings.gamma, settings.td_lambda, truncated
        )
    q = context.values.action_values(outputs, outputs.tokens)
    td_loss = (q - targets).square().sum(0) / 2
    if settings.state_value == "soft":
        state_loss = soft_value_loss(outputs.values, slow_q, settings.kl_coefficient) * settings.kl_coefficient**2
    else:
        state_loss = expectile_loss(outputs.values, slow_q, settings.expectile)
    conservative = torch.zeros_like(td_loss)
    if settings.conservative_weight:
        conservative = context.values.conservative_losses(outputs).sum(0)
    counts = buffer.token_counts(part).to(td_loss.device)
    loss = td_loss + state_loss + settings.conservative_weight * conservative
    metrics = (td_loss, state_loss, conservative, q.mean(0), outputs.values)
    return (counts * loss).sum(), torch.stack([(counts * values).detach().double().sum() for values in metrics])


def next_values(context: ValueContext, outputs: StateOutputs, slow: StateOutputs) -> Tensor:
    """Return the value [C] of every state, for the target of the action before it.

    double_q: the network that learns selects the token, the target network values it (van Hasselt et al. 2016,
    equation 4).
    """
    if context.settings.bootstrap == "double_q":
        return context.target.action_values(slow, context.values.best_tokens(outputs)).amin(0)
    return outputs.values.detach()


@torch.no_grad()
def token_advantages(context: ValueContext, buffer: ReplayBuffer) -> list[Tensor]:
    """Return Q(s, a) − V(s) of the target network for all tokens of the buffer: one tensor per completion."""
    indices = range(len(buffer.episodes.completions))
    mine = list(share(indices, context.processes.rank, context.processes.count))
    episodes = buffer.episodes.select(mine)

    def advantages(part: Episodes) -> list[Tensor]:
        with computing_in(context.settings.dtype):
            outputs = context.target.read(pack_episodes(part, context.target.trunk.device))
            return [context.target.action_values(outputs, outputs.tokens).amin(0) - outputs.values]

    def pass_over(budget: int) -> list[Tensor]:
        if not mine:
            return []
        parts = within_budget(episodes, budget, shares_prompts(context.target.trunk))
        return by_episode(advantages, episodes, parts)[0]

    return context.processes.gather(context.micro_batches.attempt(episodes.lengths(), pass_over))


def weigh_tokens(advantages: Sequence[Tensor], buffer: ReplayBuffer, settings: QConfig) -> WeightedTokens:
    """Return the weights of the buffer's tokens, which have these advantages."""
    weights = [advantage_weights(row, settings.kl_coefficient, settings.max_weight) for row in advantages]
    everything = range(len(weights))
    total = (buffer.token_counts(everything) * torch.cat(weights)).double().sum()
    return WeightedTokens(weights, float(total) / buffer.tokens(everything))


def policy_batch(
    context: ValueContext, buffer: ReplayBuffer, weighted: WeightedTokens, batch: Sequence[int], learns: bool = True
) -> list[float]:
    """Return the mean of weight · −log π(token) and of −log π(token), in nats; with `learns`, add up the gradient.

    The weights are divided by their mean over the buffer: their scale has no effect on the optimum, only on the step.
    """
    tokens = buffer.tokens(batch)

    def work(part: Sequence[int]) -> Tensor:
        with computing_in(context.settings.dtype):
            losses = -score_tokens(context.policy, buffer.episodes.select(part)).log_probs
        counts = buffer.token_counts(part).to(losses.device)
        weights = counts * torch.cat([weighted.weights[i] for i in part]).to(losses.device) / weighted.mean
        if learns:
            ((weights * losses).sum() / tokens).backward()
        return torch.stack([(factor * losses).detach().double().sum() for factor in (weights, counts)])

    return (over_parts(context, context.policy, buffer, batch, work, learns, 2) / tokens).tolist()


def over_parts(
    context: ValueContext,
    model: Any,
    buffer: ReplayBuffer,
    batch: Sequence[int],
    work: Callable[[Sequence[int]], Tensor],
    learns: bool,
    count: int,
) -> Tensor:
    """Return the sum [count] of `work` over micro-batches of all processes, and the model's gradient summed over them.

    work: called with indices of the buffer. An attempt that ran out of memory is repeated from a zero gradient.
    """
    mine = list(share(sorted(batch, key=lambda i: len(buffer.episodes.completions[i])),
                      context.processes.rank, context.processes.count))  # fmt: skip
    episodes = buffer.episodes.select(mine)
    trunk = model.trunk if isinstance(model, ValueNetwork) else model

    def pass_over(budget: int) -> Tensor:
        sums = torch.zeros(count, dtype=torch.float64)
        for part in within_budget(episodes, budget, shares_prompts(trunk)) if mine else []:
            sums += work([mine[i] for i in part]).cpu()
        return sums

    with torch.set_grad_enabled(learns):
        sums = context.micro_batches.attempt(
            episodes.lengths(), pass_over, undo=lambda: model.zero_grad(set_to_none=True)
        )
    if learns:
        context.processes.sum_gradients(model.parameters())
    return torch.tensor([context.processes.sum_of(number) for number in sums.tolist()], dtype=torch.float64)
