"""Evaluation of the policy on held-out prompts, with the same random numbers every time.

Also samples for the comparison with the best attainable objective (see optimality.py).
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel

from training.learner.models.packing import Episodes
from training.learner.policy.bridge import Samples
from training.learner.policy.dialogues import sample_episodes
from training.learner.policy.optimality import report
from training.learner.policy.rollout import Rollout, TrainingContext, environment_rewards, score_episodes
from training.learner.reward_terms import Answer
from training.learner.runtime.intervals import mean_with_interval
from training.learner.runtime.jobdir import JobDirectory
from training.learner.text.messages import Prompt, share

# Completions sampled here are numbered from these on. Their random numbers differ from those of training and from each
# other's, because a number selects the random numbers of a completion.
EVALUATION_NUMBERS = 2**40
OPTIMUM_NUMBERS = 2**41
REFERENCE_OPTIMUM_NUMBERS = 3 * 2**40


class Measured(NamedTuple):
    """Figures of result.json, and the rows of measured_samples.jsonl that they are computed from."""

    figures: dict[str, Any]
    samples: list[dict[str, Any]]


class Evaluation(NamedTuple):
    """An evaluation during training."""

    metrics: dict[str, float]
    samples: list[dict[str, Any]]  # rows of samples_at_steps.jsonl without the step: the first eval_samples prompts


def evaluate(context: TrainingContext, prompts: Sequence[Prompt]) -> Evaluation:
    """Return reward and KL on at most eval_prompts prompts, and completions of the first ones."""
    episodes, answers = sample_episodes(context, context.policy, *_evaluation_prompts(context, prompts))
    rollout = score_episodes(context, episodes, answers)
    metrics = {"eval_reward": float(rollout.scores.mean()), "eval_kl": float(rollout.divergences().mean())}
    return Evaluation(metrics, sample_rows(prompts[: context.settings.eval_samples], answers, rollout))


def first_samples(context: TrainingContext, prompts: Sequence[Prompt]) -> list[dict[str, Any]]:
    """Return the samples of an evaluation before training, of the first eval_samples prompts only."""
    selected = prompts[: context.settings.eval_samples]
    return evaluate(context, selected).samples if selected else []


def sample_rows(prompts: Sequence[Prompt], answers: Sequence[Answer], rollout: Rollout) -> list[dict[str, Any]]:
    """Return a row of each prompt for samples_at_steps.jsonl. Answers and rollout may be of more prompts."""
    rewards, log_ratios = rollout.scores.tolist(), rollout.divergences().tolist()
    return [
        {
            "prompt_id": prompt.row.get("prompt_id"),
            "messages": prompt.row["messages"],
            **({"turns": list(answers[i].turns)} if answers[i].turns else {"text": answers[i].text}),
            "finished": rollout.finished[i],
            "reward": round(rewards[i], 4),
            "log_ratio": round(log_ratios[i], 4),
        }
        for i, prompt in enumerate(prompts)
    ]


def evaluation_rollout(context: TrainingContext, prompts: Sequence[Prompt]) -> Rollout:
    """Return one scored completion of the policy for each of (at most eval_prompts) prompts."""
    return score_episodes(context, *sample_episodes(context, context.policy, *_evaluation_prompts(context, prompts)))


def measure_policy(
    context: TrainingContext, job: JobDirectory, prompts: Sequence[Prompt], kl_coefficient: float
) -> dict[str, Any]:
    """Return the figures of result.json for the policy, and write the samples that they are computed from.

    None without evaluation prompts.
    """
    if not context.settings.eval_prompts:
        return {}
    evaluated, attained = evaluation_result(context, prompts), optimality_result(context, prompts, kl_coefficient)
    job.write_measured_samples([*evaluated.samples, *attained.samples])
    return evaluated.figures | attained.figures


def evaluation_result(context: TrainingContext, prompts: Sequence[Prompt]) -> Measured:
    """Return reward and KL of the policy and the reward of the reference on the same prompts.

    Both are sampled with the same random numbers, so their rewards are compared prompt by prompt.
    """
    rollout = evaluation_rollout(context, prompts)
    before = rewards_of(context, *sample_episodes(context, context.reference, *_evaluation_prompts(context, prompts)))
    result = {"reward": float(rollout.scores.mean()), "kl": float(rollout.divergences().mean())}
    result |= {"reward_reference": float(before.mean()), "evaluation_prompts": len(before)}
    samples = measured_samples("evaluation", "policy", prompts, rollout)
    samples += [
        {
            "purpose": "evaluation",
            "model": "reference",
            "prompt_id": prompt.row.get("prompt_id"),
            "index": 0,
            "reward": one,
        }
        for prompt, one in zip(prompts, before.tolist(), strict=False)
    ]
    return Measured(result | paired_gain(rollout.scores, before), samples)


def measured_samples(
    purpose: str, model: str, prompts: Sequence[Prompt], rollout: Rollout, per_prompt: int = 1, first: int = 0
) -> list[dict[str, Any]]:
    """Return rows of measured_samples.jsonl for completions by `model`, `per_prompt` of each prompt.

    first: place of the rollout's first completion among those of all prompts. log_prob and reference_log_prob are those
    of the whole completion.
    """
    columns = zip(rollout.scores.tolist(), rollout.policy, rollout.reference, strict=True)
    return [
        {
            "purpose": purpose,
            "model": model,
            "prompt_id": prompts[place // per_prompt].row.get("prompt_id"),
            "index": place % per_prompt,
            "reward": reward,
            "log_prob": float(policy.double().sum()),
            "reference_log_prob": float(reference.double().sum()),
        }
        for place, (reward, policy, reference) in enumerate(columns, first)
    ]


def paired_gain(after: Tensor, before: Tensor) -> dict[str, float]:
    """Return the mean gain in reward over prompts [P] and, from 30 prompts on, its 95 % interval."""
    return mean_with_interval("reward_gain", (after - before).double().tolist())


def _evaluation_prompts(context: TrainingContext, prompts: Sequence[Prompt]) -> tuple[Sequence[Prompt], range]:
    """Return the prompts of an evaluation, and the numbers of their completions."""
    selected = prompts[: context.settings.eval_prompts]
    return selected, range(EVALUATION_NUMBERS, EVALUATION_NUMBERS + len(selected))


def optimality_result(context: TrainingContext, prompts: Sequence[Prompt], kl_coefficient: float) -> Measured:
    """Return the figures of optimality.report for result.json, from as many samples of the reference as of the policy.

    None if no estimate is requested, or if the KL coefficient is 0: the best attainable objective is then the highest
    reward of any completion, which cannot be estimated from samples.
    """
    settings = context.settings
    if not (settings.eval_prompts and settings.optimum_samples and settings.kl_coefficient):
        return Measured({}, [])
    reference, of_reference = scored_samples(context, "reference", prompts, REFERENCE_OPTIMUM_NUMBERS)
    policy, of_policy = scored_samples(context, "policy", prompts, OPTIMUM_NUMBERS)
    return Measured(report(reference, policy, kl_coefficient), [*of_reference, *of_policy])


def scored_samples(
    context: TrainingContext, name: str, prompts: Sequence[Prompt], first: int
) -> tuple[Samples, list[dict[str, Any]]]:
    """Return optimum_samples completions of the policy or the reference per prompt, numbered from `first`.

    First their rewards and log-ratios, then the rows of measured_samples.jsonl.
    """
    model, per_prompt = getattr(context, name), context.settings.optimum_samples
    rollouts = [score_episodes(context, *part) for part in sample_many(context, model, prompts, first)]
    rewards = torch.cat([rollout.scores for rollout in rollouts])
    log_ratios = torch.cat([rollout.divergences() for rollout in rollouts])
    rows: list[dict[str, Any]] = []
    for rollout in rollouts:
        rows += measured_samples("objective", name, prompts, rollout, per_prompt, len(rows))
    return Samples(rewards.view(-1, per_prompt), log_ratios.view(-1, per_prompt)), rows


def sample_many(
    context: TrainingContext, model: PreTrainedModel, prompts: Sequence[Prompt], first_number: int
) -> Iterator[tuple[Episodes, list[Answer]]]:
    """Yield optimum_samples completions of each of (at most optimum_prompts) prompts, batch_episodes at a time."""
    settings = context.settings
    selected = prompts[: min(settings.eval_prompts, settings.optimum_prompts)]
    repeated = [prompt for prompt in selected for _ in range(settings.optimum_samples)]
    for start in range(0, len(repeated), settings.batch_episodes):
        part = repeated[start : start + settings.batch_episodes]
        first = first_number + start
        yield sample_episodes(context, model, part, range(first, first + len(part)))


@torch.no_grad()
def rewards_of(context: TrainingContext, episodes: Episodes, answers: Sequence[Answer]) -> Tensor:
    """Return the rewards [N] of episodes with these last turns; every process scores its share."""
    mine = share(answers, context.processes.rank, context.processes.count)
    terms = torch.tensor(context.processes.gather(context.reward(mine).tolist()))
    return terms + environment_rewards(episodes)
