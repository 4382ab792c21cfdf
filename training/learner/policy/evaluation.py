"""How the policy does on prompts apart, with the same random numbers every time; and how close it came to the best."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from training.learner.models.packing import Episodes
from training.learner.policy.optimality import report
from training.learner.policy.rollout import Rollout, Run, score_episodes, write_episodes
from training.learner.reward_terms import Answer
from training.learner.text.messages import Prompt, share

# Completions written here are numbered from these on, apart from those learned from and from each other.
EVALUATION_NUMBERS = 2**40
OPTIMUM_NUMBERS = 2**41
Z_95 = 1.959964  # the normal distribution's 97.5 % point
LEAST_FOR_INTERVAL = 30  # prompts: with fewer, a normal interval of skewed rewards covers too seldom


def evaluate(run: Run, prompts: Sequence[Prompt]) -> dict[str, float]:
    """Reward and KL of the policy on (at most eval_prompts) prompts."""
    rollout = evaluation_rollout(run, prompts)
    return {"eval_reward": float(rollout.scores.mean()), "eval_kl": float(rollout.divergences().mean())}


def evaluation_rollout(run: Run, prompts: Sequence[Prompt]) -> Rollout:
    """Return one scored completion of the policy for each of (at most eval_prompts) prompts."""
    return score_episodes(run, *write_episodes(run, run.policy, *_chosen(run, prompts)))


def evaluation_result(run: Run, prompts: Sequence[Prompt]) -> dict[str, float]:
    """Return what result.json says of the policy and of the reference on the same prompts.

    Both are sampled with the same random numbers, so their rewards are compared prompt by prompt.
    """
    rollout = evaluation_rollout(run, prompts)
    _, answers = write_episodes(run, run.reference, *_chosen(run, prompts))
    before = shared_rewards(run, answers)
    result = {"reward": float(rollout.scores.mean()), "kl": float(rollout.divergences().mean())}
    result |= {"reward_reference": float(before.mean()), "evaluation_prompts": len(before)}
    return result | paired_gain(rollout.scores, before)


def paired_gain(after: Tensor, before: Tensor) -> dict[str, float]:
    """Return the mean gain in reward over prompts [P] and, from 30 prompts on, its 95 % interval.

    The interval is the normal one for the mean of paired differences: mean ± 1.96 s / √P.
    """
    gains = (after - before).double()
    mean = float(gains.mean())
    if len(gains) < LEAST_FOR_INTERVAL:
        return {"reward_gain": mean}
    half = Z_95 * float(gains.std()) / math.sqrt(len(gains))
    return {"reward_gain": mean, "reward_gain_low": mean - half, "reward_gain_high": mean + half}


def _chosen(run: Run, prompts: Sequence[Prompt]) -> tuple[Sequence[Prompt], range]:
    """Return the prompts of an evaluation, and the numbers of their completions."""
    chosen = prompts[: run.settings.eval_prompts]
    return chosen, range(EVALUATION_NUMBERS, EVALUATION_NUMBERS + len(chosen))


def reference_rewards(run: Run, prompts: Sequence[Prompt]) -> Tensor | None:
    """[P, m]: the rewards of optimum_samples completions a prompt by the reference; None if no estimate is asked for.

    Without a price on KL (a coefficient of 0) nothing but the highest reward there is would be best.
    """
    settings = run.settings
    if not (settings.eval_prompts and settings.optimum_samples and settings.kl_coefficient):
        return None
    parts = [shared_rewards(run, answers) for _, answers in many(run, run.reference, prompts)]
    return torch.cat(parts).view(-1, settings.optimum_samples)


def how_close(run: Run, prompts: Sequence[Prompt], reference: Tensor | None, kl_coefficient: float) -> dict[str, Any]:
    """What result.json says of it (see optimality.report): the policy's samples are as many, of the same prompts."""
    if reference is None:
        return {}
    rollouts = [score_episodes(run, *part) for part in many(run, run.policy, prompts)]
    rewards = torch.cat([rollout.scores for rollout in rollouts]).view_as(reference)
    divergences = torch.cat([rollout.divergences() for rollout in rollouts]).view_as(reference)
    return report(reference, rewards, divergences, kl_coefficient)


def many(run: Run, writer: PreTrainedModel, prompts: Sequence[Prompt]) -> Iterator[tuple[Episodes, list[Answer]]]:
    """optimum_samples completions of each of (at most optimum_prompts) prompts, batch_episodes at a time."""
    settings = run.settings
    chosen = prompts[: min(settings.eval_prompts, settings.optimum_prompts)]
    repeated = [prompt for prompt in chosen for _ in range(settings.optimum_samples)]
    for start in range(0, len(repeated), settings.batch_episodes):
        part = repeated[start : start + settings.batch_episodes]
        first = OPTIMUM_NUMBERS + start
        yield write_episodes(run, writer, part, range(first, first + len(part)))


@torch.no_grad()
def shared_rewards(run: Run, answers: Sequence[Answer]) -> Tensor:
    """[N]: every process scores its share."""
    mine = share(answers, run.processes.rank, run.processes.count)
    return torch.tensor(run.processes.gather(run.reward(mine).tolist()))
