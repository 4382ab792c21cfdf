"""Updates from one rollout: epochs of minibatches, each one step of every optimizer."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from training.learner.estimators import ALGORITHMS, Algorithm
from training.learner.models.imitation import total_weight, weighted_loss
from training.learner.models.loading import computing_in
from training.learner.models.packing import within_budget
from training.learner.models.slot_budget import batches_within
from training.learner.models.token_outputs import (
    PolicyTrunkCritic,
    compute_token_outputs,
    critic_values,
    is_separate_critic,
)
from training.learner.policy.losses import clipped_policy_loss, clipped_value_loss, kl_k3, sequence_log_ratios
from training.learner.policy.rollout import FirstPass, Rollout, Targets, TrainingContext, scored_indices
from training.learner.runtime.config import PpoConfig
from training.learner.runtime.optimization import check_finite, take_step
from training.learner.text.demonstrations import Example
from training.learner.text.messages import share, shuffled

# Means over completion tokens; policy_loss and clip_fraction over those of episodes with an advantage.
METRICS = ("policy_loss", "entropy", "clip_fraction", "approx_kl", "value_loss")


class TrainedModel(NamedTuple):
    """A model that is trained, with its optimizer."""

    name: str  # policy or critic
    model: Any
    optimizer: Optimizer
    learning_rate: float  # the peak


def minibatches(step: int, settings: PpoConfig) -> Iterator[list[int]]:
    """Yield the indices of the episodes of each optimizer step of a batch; every epoch shuffles them again."""
    size = settings.batch_episodes // settings.minibatches
    for epoch in range(settings.epochs):
        order = shuffled(settings.batch_episodes, settings.seed, (step - 1) * settings.epochs + epoch)
        for start in range(0, settings.batch_episodes, size):
            yield order[start : start + size]


def demonstrations_of_update(rows: Sequence[Example], number: int, settings: PpoConfig) -> list[Example]:
    """Return the demonstrations of optimizer step `number` of the run: as many as it has episodes, pass after pass."""
    if not rows:
        return []
    size = settings.batch_episodes // settings.minibatches
    places = range(number * size, (number + 1) * size)
    epochs = {place // len(rows) for place in places}
    orders = {epoch: shuffled(len(rows), settings.seed, epoch) for epoch in epochs}
    return [rows[orders[place // len(rows)][place % len(rows)]] for place in places]


def train_on_rollout(
    context: TrainingContext,
    trained: Sequence[TrainedModel],
    rollout: Rollout,
    targets: Targets,
    kl_coefficient: float,
    step: int,
    rate: float,
) -> dict[str, float]:
    """Take all optimizer steps of one batch and return the means of their metrics.

    rate: factor of the peak learning rates. The batch ends early, before a step, if the KL from the policy that sampled
    it is above max_update_kl.
    """
    settings = context.settings
    history: list[dict[str, float]] = []
    for number, minibatch in enumerate(
        minibatches(step, settings), (step - 1) * settings.epochs * settings.minibatches
    ):
        imitated = demonstrations_of_update(context.demonstrations, number, settings)
        metrics = accumulate_gradients(
            context, rollout, targets, minibatch, kl_coefficient, is_first=not history, imitated=imitated
        )
        for name in METRICS:
            check_finite(name, metrics[name], step)
        if history and settings.max_update_kl and metrics["approx_kl"] > settings.max_update_kl:
            for part in trained:
                part.optimizer.zero_grad(set_to_none=True)
            break
        for part in trained:
            norm = take_step(part.optimizer, part.model.parameters(), rate * part.learning_rate,
                             settings.max_gradient_norm, step, f"the {part.name}'s gradient norm")  # fmt: skip
            metrics[f"{part.name}_gradient_norm"] = norm
        history.append(metrics)
    means = {name: sum(metrics[name] for metrics in history) / len(history) for name in history[0]}
    return means | {"updates": float(len(history)), "first_approx_kl": history[0]["approx_kl"]}


def accumulate_gradients(
    context: TrainingContext,
    rollout: Rollout,
    targets: Targets,
    minibatch: Sequence[int],
    kl_coefficient: float,
    is_first: bool,
    imitated: Sequence[Example] = (),
) -> dict[str, float]:
    """Add up the gradients of one minibatch over micro-batches and processes, and return METRICS.

    minibatch: indices of its episodes. is_first: whether it is the batch's first one. imitated: demonstrations whose
    mean negative log-likelihood is part of the loss, with the weight ptx_coefficient (PPO-ptx, Ouyang et al. 2022,
    equation 2); it is returned too, as ptx_loss.
    """
    tokens = sum(rollout.episodes.select(minibatch).policy_lengths())
    weights = policy_weights(ALGORITHMS[context.settings.algorithm], rollout, targets, minibatch)
    mine = process_share(context, rollout, minibatch, is_first)
    my_episodes = rollout.episodes.select(mine)
    my_imitated = share(imitated, context.processes.rank, context.processes.count)

    def pass_over(budget: int) -> Tensor:
        sums = torch.zeros(len(METRICS), dtype=torch.float64, device=context.policy.device)
        first_pass = rollout.first_pass.pop() if is_first and rollout.first_pass else None
        parts = [[mine[i] for i in part] for part in within_budget(my_episodes, budget, context.shares_prompts)]
        for micro in parts if first_pass is None else [first_pass.indices]:
            with computing_in(context.settings.dtype):
                loss, metrics = policy_losses(
                    context, rollout, targets, micro, kl_coefficient, weights, is_first, first_pass
                )
            # Before the critic's pass, so that memory holds the activations of one model at a time.
            (loss / tokens).backward()
            sums += metrics
            if is_separate_critic(context.critic):
                sums[-1] += backward_values(separate_critic_values(context, rollout, micro, first_pass), micro)
        if stored := [i for i in minibatch if i in rollout.states]:  # critic on the reward model's trunk
            states = torch.cat([rollout.states[i] for i in stored]).to(context.policy.device)
            sums[-1] += backward_values(context.critic.values(states), stored)
        return torch.cat([sums, imitation_gradients(context, my_imitated, total_weight(imitated), budget)])

    def backward_values(values: Tensor, micro: Sequence[int]) -> Tensor:
        loss = value_losses(values, context, rollout, targets, micro).sum()
        (loss / tokens).backward()
        return loss.detach()

    lengths = [*my_episodes.lengths(), *(len(example.tokens) for example in my_imitated)]
    sums = context.micro_batches.attempt(lengths, pass_over, undo=lambda: clear_gradients(context))
    context.processes.sum_gradients(context.policy.parameters())
    if context.critic is not None:
        context.processes.sum_gradients(context.critic.parameters())
    *means, ptx_loss = context.processes.sum(sums).tolist()
    metrics = {name: total / tokens for name, total in zip(METRICS, means, strict=True)}
    return metrics | ({"ptx_loss": ptx_loss} if imitated else {})


def policy_weights(
    algorithm: Algorithm, rollout: Rollout, targets: Targets, minibatch: Sequence[int]
) -> dict[int, float]:
    """Return the weight of the policy loss of a token of each episode.

    It is that of `policy_weight`; with a ratio of sequences the loss is the mean over episodes instead, so a token has
    the weight of its episode divided by the episode's length.
    """
    if not algorithm.is_ratio_of_sequence:
        return dict.fromkeys(minibatch, policy_weight(rollout, targets, minibatch))
    tokens = rollout.episodes.select(minibatch).policy_lengths()
    estimated = sum(bool(targets.is_estimated[i]) for i in minibatch)
    return {i: sum(tokens) / (estimated * count) if estimated else 0.0
            for count, i in zip(tokens, minibatch, strict=True)}  # fmt: skip


def policy_weight(rollout: Rollout, targets: Targets, minibatch: Sequence[int]) -> float:
    """Return the weight of the policy loss in a minibatch's loss, whose sum is divided by the number of all its tokens.

    The policy gradient is a mean over samples whose return is known (Williams 1992). With this weight it is the mean
    over the tokens of episodes that have an advantage: the others are missing, and do not make the step shorter. A KL
    loss and an entropy bonus need no return, and stay means over all tokens; so their weight beside the policy loss
    does not depend on the share of truncated episodes. 0 if no episode has an advantage.
    """
    tokens = rollout.episodes.select(minibatch).policy_lengths()
    estimated = sum(count for count, i in zip(tokens, minibatch, strict=True) if targets.is_estimated[i])
    return sum(tokens) / estimated if estimated else 0.0


def imitation_gradients(context: TrainingContext, mine: Sequence[Example], weight: float, budget: int) -> Tensor:
    """Add up the gradient of ptx_coefficient times the mean loss of demonstrations, and return this part of the mean.

    mine: demonstrations of this process. weight: the total weight of those of all processes. Returns a tensor [1].
    """
    settings, device = context.settings, context.policy.device
    total = torch.zeros(1, dtype=torch.float64, device=device)
    for indices in batches_within([[(0, [len(example.tokens)])] for example in mine], budget):
        with computing_in(settings.dtype):
            loss = weighted_loss(context.policy, [mine[i] for i in indices], settings.temperature) / weight
        (settings.ptx_coefficient * loss).backward()
        total += loss.detach()
    return total


def process_share(context: TrainingContext, rollout: Rollout, minibatch: Sequence[int], is_first: bool) -> list[int]:
    """Return the indices of this process's part of a minibatch, balanced by length.

    In the first minibatch they are the episodes that this process has scored, because it may hold their first pass.
    """
    if is_first:
        return sorted(set(minibatch) & set(scored_indices(context.processes, len(rollout.finished))))
    by_length = sorted(minibatch, key=lambda i: len(rollout.episodes.completions[i]))
    return list(share(by_length, context.processes.rank, context.processes.count))


def clear_gradients(context: TrainingContext) -> None:
    """Remove the part of a gradient that a failed pass has added up."""
    for model in (context.policy, context.critic):
        if model is not None:
            model.zero_grad(set_to_none=True)


def policy_losses(
    context: TrainingContext,
    rollout: Rollout,
    targets: Targets,
    micro: Sequence[int],
    kl_coefficient: float,
    weights: Mapping[int, float],
    is_first: bool,
    first_pass: FirstPass | None,
) -> tuple[Tensor, Tensor]:
    """Return the summed loss of a micro-batch's tokens, with that of a critic on the policy's trunk, and METRICS' sums.

    In the first minibatch the policy has not changed since sampling, so its log-probs are used as the old ones too: the
    ratio is then exactly 1, even where other batch shapes would round differently. weights: of the episodes, see
    `policy_weights`.
    first_pass: the pass over the micro-batch, if it was kept.
    """
    settings, episodes = context.settings, rollout.episodes.select(micro)
    old, reference, advantages = (
        torch.cat([rows[i] for i in micro]).to(context.policy.device)
        for rows in (rollout.policy, rollout.reference, targets.advantages)
    )
    trunk_critic = context.critic if isinstance(context.critic, PolicyTrunkCritic) else None
    if first_pass is None:
        new, entropy, value = compute_token_outputs(
            context.policy, trunk_critic, episodes, settings.temperature, with_entropy=True
        )
    else:
        new, entropy, value = first_pass.outputs
    old = new.detach() if is_first else old
    lengths = episodes.policy_lengths()
    weight = torch.tensor([weights[i] for i in micro]).repeat_interleave(torch.tensor(lengths)).to(new)
    algorithm = ALGORITHMS[settings.algorithm]
    compared = old + sequence_log_ratios(new, old, lengths) if algorithm.is_ratio_of_sequence else new
    policy_loss, clipped = clipped_policy_loss(
        compared, old, advantages, settings.clip_ratio, settings.dual_clip, settings.clip_ratio_high
    )
    policy_loss, clipped = weight * policy_loss, weight * clipped
    loss = policy_loss
    if settings.entropy_coefficient:
        loss = loss - settings.entropy_coefficient * entropy
    if settings.kl_placement == "loss":
        loss = loss + kl_coefficient * kl_k3(new, reference)
    value_loss = torch.zeros_like(loss)
    if trunk_critic is not None:
        value_loss = value_losses(value, context, rollout, targets, micro)
        loss = loss + settings.value_coefficient * value_loss
    metrics = (policy_loss, entropy, clipped, kl_k3(old, new), value_loss)
    return loss.sum(), torch.stack([values.detach().double().sum() for values in metrics])


def separate_critic_values(
    context: TrainingContext, rollout: Rollout, micro: Sequence[int], first_pass: FirstPass | None
) -> Tensor:
    """Return the values [C] of a micro-batch's tokens by a separate critic. first_pass: the pass, if it was kept."""
    if first_pass is not None:
        return first_pass.outputs.values
    with computing_in(context.settings.dtype):
        return critic_values(context.critic, rollout.episodes.select(micro))


def value_losses(
    values: Tensor, context: TrainingContext, rollout: Rollout, targets: Targets, micro: Sequence[int]
) -> Tensor:
    """Return the value losses [C] of a micro-batch's tokens."""
    old, returns = (torch.cat([rows[i] for i in micro]).to(values.device) for rows in (rollout.values, targets.returns))
    return clipped_value_loss(values, old, returns, context.settings.clip_value)
