"""What a policy learns from one batch of episodes: epochs of minibatches, each one step of every optimiser."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from training.learner.models.loading import computing_in
from training.learner.models.packing import within_budget
from training.learner.models.token_outputs import (
    PolicyTrunkCritic,
    compute_token_outputs,
    critic_values,
    is_separate_critic,
)
from training.learner.policy.losses import clipped_policy_loss, clipped_value_loss, kl_k3
from training.learner.policy.rollout import FirstPass, Rollout, Run, Targets, scored_by
from training.learner.runtime.config import PpoConfig
from training.learner.runtime.optimization import check_finite, take_step
from training.learner.text.messages import share, shuffled

MEASURED = ("policy_loss", "entropy", "clip_fraction", "approx_kl", "value_loss")


class Learner(NamedTuple):
    """A model that learns."""

    name: str
    model: Any
    optimizer: Optimizer
    learning_rate: float  # at its highest


def minibatches(step: int, settings: PpoConfig) -> Iterator[list[int]]:
    """Which episodes each optimiser step of a batch learns from: every epoch all of them, in an order of its own."""
    size = settings.batch_episodes // settings.minibatches
    for epoch in range(settings.epochs):
        order = shuffled(settings.batch_episodes, settings.seed, (step - 1) * settings.epochs + epoch)
        for start in range(0, settings.batch_episodes, size):
            yield order[start : start + size]


def learn(
    run: Run,
    learners: Sequence[Learner],
    rollout: Rollout,
    targets: Targets,
    kl_coefficient: float,
    step: int,
    rate: float,
) -> dict[str, float]:
    """All updates of one batch, at `rate` times the highest learning rates; the mean of what each measured.

    Ends early, before the update, where the policy has moved further than max_update_kl from the one that sampled.
    """
    history: list[dict[str, float]] = []
    for chosen in minibatches(step, run.settings):
        measured = accumulate_gradients(run, rollout, targets, chosen, kl_coefficient, is_first=not history)
        for name in MEASURED:
            check_finite(name, measured[name], step)
        if history and run.settings.max_update_kl and measured["approx_kl"] > run.settings.max_update_kl:
            for learner in learners:
                learner.optimizer.zero_grad(set_to_none=True)
            break
        for learner in learners:
            norm = take_step(learner.optimizer, learner.model.parameters(), rate * learner.learning_rate,
                             run.settings.max_gradient_norm, step, f"the {learner.name}'s gradient norm")  # fmt: skip
            measured[f"{learner.name}_gradient_norm"] = norm
        history.append(measured)
    means = {name: sum(measured[name] for measured in history) / len(history) for name in history[0]}
    return means | {"updates": float(len(history)), "first_approx_kl": history[0]["approx_kl"]}


def accumulate_gradients(
    run: Run, rollout: Rollout, targets: Targets, chosen: Sequence[int], kl_coefficient: float, is_first: bool
) -> dict[str, float]:
    """The gradients of one minibatch, summed over micro-batches and processes; a token's mean of what it measured."""
    tokens = sum(len(rollout.episodes.completions[i]) for i in chosen)
    mine = own_share(run, rollout, chosen, is_first)
    own = rollout.episodes.select(mine)

    def pass_over(budget: int) -> Tensor:
        sums = torch.zeros(len(MEASURED), dtype=torch.float64, device=run.policy.device)
        known = rollout.first_pass.pop() if is_first and rollout.first_pass else None
        parts = [[mine[i] for i in part] for part in within_budget(own, budget, run.shares_prompts)]
        for micro in parts if known is None else [known.indices]:
            with computing_in(run.settings.dtype):
                loss, measured = policy_losses(run, rollout, targets, micro, kl_coefficient, is_first, known)
            (loss / tokens).backward()  # before the critic's pass: the activations of one model are held at a time
            sums += measured
            if is_separate_critic(run.critic):
                sums[-1] += learn_values(critic_s_values(run, rollout, micro, known), micro)
        if read := [i for i in chosen if i in rollout.states]:
            states = torch.cat([rollout.states[i] for i in read]).to(run.policy.device)
            sums[-1] += learn_values(run.critic.values(states), read)
        return sums

    def learn_values(values: Tensor, micro: Sequence[int]) -> Tensor:
        loss = value_losses(values, run, rollout, targets, micro).sum()
        (loss / tokens).backward()
        return loss.detach()

    sums = run.micro_batches.attempt(own.lengths(), pass_over, undo=lambda: forget_gradients(run))
    run.processes.sum_gradients(run.policy.parameters())
    if run.critic is not None:
        run.processes.sum_gradients(run.critic.parameters())
    return dict(zip(MEASURED, (run.processes.sum(sums) / tokens).tolist(), strict=True))


def own_share(run: Run, rollout: Rollout, chosen: Sequence[int], is_first: bool) -> list[int]:
    """This process's part of a minibatch; of the first one the episodes it has scored, so that those passes serve."""
    if is_first:
        return sorted(set(chosen) & set(scored_by(run.processes, len(rollout.finished))))
    by_length = sorted(chosen, key=lambda i: len(rollout.episodes.completions[i]))
    return list(share(by_length, run.processes.rank, run.processes.count))


def forget_gradients(run: Run) -> None:
    """What a pass that failed has added up so far."""
    for model in (run.policy, run.critic):
        if model is not None:
            model.zero_grad(set_to_none=True)


def policy_losses(
    run: Run,
    rollout: Rollout,
    targets: Targets,
    micro: Sequence[int],
    kl_coefficient: float,
    is_first: bool,
    known: FirstPass | None,
) -> tuple[Tensor, Tensor]:
    """The sum of the policy's losses over a micro-batch's tokens, and of a shared critic; the sums of MEASURED.

    In the first minibatch the policy is still the one that sampled, so its log-probabilities *are* the old ones, and
    the ratio is 1 to the bit whatever the passes' shapes. known: the pass over it, if it was made already.
    """
    settings, episodes = run.settings, rollout.episodes.select(micro)
    old, reference, advantages = (
        torch.cat([rows[i] for i in micro]).to(run.policy.device)
        for rows in (rollout.policy, rollout.reference, targets.advantages)
    )
    shared = run.critic if isinstance(run.critic, PolicyTrunkCritic) else None
    if known is None:
        new, entropy, value = compute_token_outputs(
            run.policy, shared, episodes, settings.temperature, with_entropy=True
        )
    else:
        new, entropy, value = known.outputs
    old = new.detach() if is_first else old
    policy_loss, clipped = clipped_policy_loss(new, old, advantages, settings.clip_ratio, settings.dual_clip)
    loss = policy_loss
    if settings.entropy_coefficient:
        loss = loss - settings.entropy_coefficient * entropy
    if settings.kl_placement == "loss":
        loss = loss + kl_coefficient * kl_k3(new, reference)
    value_loss = torch.zeros_like(loss)
    if shared is not None:
        value_loss = value_losses(value, run, rollout, targets, micro)
        loss = loss + settings.value_coefficient * value_loss
    measured = (policy_loss, entropy, clipped, kl_k3(old, new), value_loss)
    return loss.sum(), torch.stack([value.detach().double().sum() for value in measured])


def critic_s_values(run: Run, rollout: Rollout, micro: Sequence[int], known: FirstPass | None) -> Tensor:
    """[C]: those of a separate critic of a micro-batch's tokens; known: the pass, if it was made already."""
    if known is not None:
        return known.outputs.values
    with computing_in(run.settings.dtype):
        return critic_values(run.critic, rollout.episodes.select(micro))


def value_losses(values: Tensor, run: Run, rollout: Rollout, targets: Targets, micro: Sequence[int]) -> Tensor:
    """[C]: the losses of the values [C] of a micro-batch's tokens."""
    old, returns = (torch.cat([rows[i] for i in micro]).to(values.device) for rows in (rollout.values, targets.returns))
    return clipped_value_loss(values, old, returns, run.settings.clip_value)
