"""What a policy learns from one batch of episodes: epochs of minibatches, each one step of every optimiser."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from training.learner.config import PpoConfig
from training.learner.data import budget_batches, share, shuffled
from training.learner.losses import clipped_policy_loss, clipped_value_loss, kl_k3
from training.learner.models import computing_in, score_states, score_tokens
from training.learner.optimization import check_finite, take_step
from training.learner.rollout import Rollout, Run, Targets

MEASURED_OF_POLICY = ("policy_loss", "entropy", "clip_fraction", "approx_kl")
MEASURED = (*MEASURED_OF_POLICY, "value_loss")


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
    completions = rollout.episodes.completions
    tokens = sum(len(completions[i]) for i in chosen)
    mine = share(sorted(chosen, key=lambda i: len(completions[i])), run.processes.rank, run.processes.count)
    lengths = rollout.episodes.select(mine).lengths()

    def pass_over(budget: int) -> Tensor:
        sums = torch.zeros(len(MEASURED), dtype=torch.float64, device=run.policy.device)
        for indices in budget_batches(lengths, budget):
            micro = [mine[i] for i in indices]
            with computing_in(run.settings.dtype):
                loss, measured = policy_losses(run, rollout, targets, micro, kl_coefficient, is_first)
            (loss / tokens).backward()  # before the critic's pass: the activations of one model are held at a time
            sums[:-1] += measured
            if run.critic is not None:
                with computing_in(run.settings.dtype):
                    loss = value_losses(run, rollout, targets, micro)
                (loss / tokens).backward()
                sums[-1] += loss.detach()
        return sums

    sums = run.micro_batches.attempt(lengths, pass_over, undo=lambda: forget_gradients(run))
    run.processes.sum_gradients(run.policy.parameters())
    if run.critic is not None:
        run.processes.sum_gradients(run.critic.parameters())
    return dict(zip(MEASURED, (run.processes.sum(sums) / tokens).tolist(), strict=True))


def forget_gradients(run: Run) -> None:
    """What a pass that failed has added up so far."""
    for model in (run.policy, run.critic):
        if model is not None:
            model.zero_grad(set_to_none=True)


def policy_losses(
    run: Run, rollout: Rollout, targets: Targets, micro: Sequence[int], kl_coefficient: float, is_first: bool
) -> tuple[Tensor, Tensor]:
    """The sum of the policy's losses over a micro-batch's tokens; the sums of MEASURED_OF_POLICY.

    In the first minibatch the policy is still the one that sampled, so its log-probabilities *are* the old ones, and
    the ratio is 1 to the bit whatever the passes' shapes.
    """
    settings, episodes = run.settings, rollout.episodes.select(micro)
    old, reference, advantages = (
        torch.cat([rows[i] for i in micro]).to(run.policy.device)
        for rows in (rollout.policy, rollout.reference, targets.advantages)
    )
    new, entropy = score_tokens(run.policy, episodes, settings.temperature, with_entropy=True)
    old = new.detach() if is_first else old
    policy_loss, clipped = clipped_policy_loss(new, old, advantages, settings.clip_ratio, settings.dual_clip)
    loss = policy_loss
    if settings.entropy_coefficient:
        loss = loss - settings.entropy_coefficient * entropy
    if settings.kl_placement == "loss":
        loss = loss + kl_coefficient * kl_k3(new, reference)
    measured = (policy_loss, entropy, clipped, kl_k3(old, new))
    return loss.sum(), torch.stack([value.detach().double().sum() for value in measured])


def value_losses(run: Run, rollout: Rollout, targets: Targets, micro: Sequence[int]) -> Tensor:
    """The sum of the critic's losses over a micro-batch's tokens."""
    old, returns = (
        torch.cat([rows[i] for i in micro]).to(run.policy.device) for rows in (rollout.values, targets.returns)
    )
    values = score_states(run.critic, rollout.episodes.select(micro))
    return clipped_value_loss(values, old, returns, run.settings.clip_value).sum()
