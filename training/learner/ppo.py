"""ppo: improve a policy against rewards while it stays close to a reference (PPO, RLOO, GRPO or REINFORCE).

    python -m training.learner.ppo JOB_DIR
    accelerate launch --num_processes 2 -m training.learner.ppo JOB_DIR

Files in:

    config.json    settings that differ from the defaults below; `model` is required
    prompts.jsonl  {"prompt_id": 7, "messages": [{"role": "user", "content": "..."}]}, one prompt per line

    demonstrations.jsonl  with ptx_coefficient only: as for sft, without those of the split "held_out"

A prompt with `"split": "held_out"` is used for evaluation only; without any, training prompts are evaluated.
`"references": ["..."]` are right answers, for reward terms that compare with them.

Files out:

    model/         the policy, a Hugging Face folder
    critic/        with keep_critic only: the critic, for `critic_model` of a later run (models/kept_critic.py)
    metrics.jsonl  one line per batch: reward, kl (nats per completion), objective (reward − β·kl), losses, speed
    samples_at_steps.jsonl  completions of the first evaluation prompts at the start and at each evaluation
    measured_samples.jsonl  rewards and log-probs of the completions that reward, KL and objective are computed from:
                   {"purpose": "evaluation" or "objective", "model": "policy" or "reference", "prompt_id": 7,
                   "index": 0, "reward": 0.5, "log_prob": -31.2, "reference_log_prob": -33.0}
    result.json    reward and KL on the evaluation prompts, and the objective with the best attainable one, if known
                   (see policy/optimality.py); critic_start: whether the critic started from critic_model or is new;
                   written last
    state/         state to resume from

Steps:

1. Load the models and the prompts.
2. Make the optimizers, and load the state of an earlier run.
3. Sample a batch of completions from the newest policy, and compute rewards, log-probs and values.
4. Update the policy and the critic: `epochs` passes of `minibatches` optimizer steps.
5. Write metrics, adapt the KL coefficient and the baseline, evaluate, save. Repeat from 3, `steps` times.
6. Write the model, the critic to keep, and the result.

SIGTERM stops the program between two steps with its state saved; the same command resumes. Every random choice is a
function of the seed and the step, so a resumed run ends in the same bits as one without a stop.

`environment` selects what answers the policy. With `single_turn` a completion is an episode; with `dialogue` a
simulated user answers, and the policy answers again (see environments/). Rewards of an environment belong to turns. The
reward terms score the last turn, with the dialogue before it as messages. A dialogue that no further turn fits into is
truncated, not ended: in place of the score, GAE bootstraps from the critic's value of the state that it stops in.
Algorithms without a critic leave it out: of the baseline, of grpo's deviation and of the policy loss.

`algorithm` selects the source of the advantages: a critic with GAE (ppo), the other completions of the prompt (rloo,
grpo, dr_grpo, gspo), a baseline (reinforce) or the batch (reinforce_plus_plus). gspo also has one probability ratio per
completion. Everything else is the same for all.

To save time and memory use `critic: reward_model` and 2 epochs of 2 minibatches instead of 4 of 1. This takes as many
optimizer steps with half of the passes. A critic on the reward model's trunk costs almost nothing on top of the pass
that scores. In our measurements it learns as well as a separate critic, which starts from the same values. A critic on
the policy's trunk learns less per batch, because it starts from zero (training/LOG.md).

Implementation details published by Huang et al. ("The N+ Implementation Details of RLHF with PPO", 2024, which
reproduces OpenAI's code of 2019; "The 37 Implementation Details of PPO", 2022), and what this program does:

| detail | here |
|---|---|
| reward at the last token, KL penalty at every token | followed; the last token is EOS, if there is one |
| scores normalised on samples of the reference | followed: stored in the reward model's folder |
| a completion without EOS gets a fixed low score | changed: missing_eos_penalty lowers it, scores keep their order |
| KL by k1, adaptive coefficient (error clipped to ±0.2) | followed; the coefficient is fixed by default |
| reward whitening that keeps the mean | followed: whiten_rewards; off by default, normalised scores need none |
| masked advantage whitening over the batch | followed; every process uses the statistics of the whole batch |
| samples of one length, truncated after their EOS | changed: completions stop at EOS, nothing is padded |
| dropout off | followed, in all models |
| Adam with ε 1e-5 | for small models, see adam_epsilon; with PyTorch's bias correction (TensorFlow's differs) |
| learning rate annealed linearly | followed; a step of the schedule is a batch |
| value head on the policy's trunk, zero at first | changed: see `critic` for the three kinds |
| clipped ratio, clipped value, ½ in the value loss | followed |
| one loss, value coefficient 0.1, no gradient clipping | followed on a shared trunk; else one loss each; both clip |
| means over the tokens of a micro-batch | changed: over the minibatch on all processes, so no split changes it |
| temperature divides the logits in every pass | followed |
| gradient of the pretraining data mixed in (PPO-ptx) | ptx_coefficient, on demonstrations; off by default |
| top-p while training | not offered: the policy that samples must be the one that is improved |
"""

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from training.learner.models.context_length import max_positions
from training.learner.models.generic_forward import path_summary
from training.learner.models.kept_critic import save_critic
from training.learner.models.saving import save_model
from training.learner.models.token_outputs import RewardTrunkCritic, is_separate_critic
from training.learner.policy.context import load_context, load_prompts, split_prompts
from training.learner.policy.dialogues import sample_episodes
from training.learner.policy.evaluation import evaluate, first_samples, measure_policy
from training.learner.policy.losses import next_kl_coefficient
from training.learner.policy.rollout import (
    Rollout,
    Targets,
    TrainingContext,
    check_rollout,
    check_some_end,
    compute_targets,
    mean_reward_of_ended,
    prompts_of_step,
    score_episodes,
)
from training.learner.policy.updates import TrainedModel, minibatches, train_on_rollout
from training.learner.runtime.config import HEAD_LEARNING_RATE, PpoConfig
from training.learner.runtime.jobdir import BadInput, JobDirectory, Stopped
from training.learner.runtime.optimization import (
    adam_epsilon,
    adamw,
    learning_rate_factor,
    load_state,
    peak_learning_rate,
    save_state,
)
from training.learner.runtime.program import run_program
from training.learner.runtime.start import start_program
from training.learner.sampling.sampler import check_positions
from training.learner.text.demonstrations import Example, encode_demonstration, read_demonstrations
from training.learner.text.messages import Prompt


@dataclasses.dataclass
class AdaptiveState:
    """Values that adapt from batch to batch besides the weights."""

    kl_coefficient: float
    baseline: float | None = None  # moving baseline of reinforce; None before the first batch


def main(job_dir: Path) -> None:
    start = start_program(job_dir, PpoConfig)
    if start is None:
        return
    settings, job, processes, stop, started = start

    # 1. Models and prompts.
    context = load_context(settings, processes)
    prompts = load_prompts(context, job)
    training, evaluated = split_prompts(prompts)
    context = context._replace(demonstrations=load_demonstrations(context, job))

    # 2. Optimizers, and the state of an earlier run.
    trained = trained_models(context)
    parts = state_parts(trained)
    step, adaptive = resume(job, parts, settings)
    if step == 0 and settings.eval_prompts:
        job.append_samples(0, first_samples(context, evaluated[: settings.curve_prompts()]))

    while step < settings.steps:
        # 3. A rollout from the newest policy. A stop before step 4 drops it; the resumed run samples the same again.
        clock = Clock()
        episodes, answers = sample_episodes(context, context.policy, *prompts_of_step(training, step + 1, settings))
        clock.lap("sampling")
        rollout = score_episodes(context, episodes, answers, next(minibatches(step + 1, settings)))
        check_rollout(rollout, step + 1)
        if step == 0:
            check_some_end(rollout, settings)
        clock.lap("scoring")
        if processes.any(stop.received):
            save_state(job, step, parts, dataclasses.asdict(adaptive))
            raise Stopped

        # 4. Epochs of minibatches over it.
        step += 1
        rate = learning_rate_factor(step, settings.steps, settings)
        targets = compute_targets(rollout, adaptive.kl_coefficient, adaptive.baseline, settings)
        learned = train_on_rollout(context, trained, rollout, targets, adaptive.kl_coefficient, step, rate)
        clock.lap("learning")

        # 5. Metrics, adaptation, evaluation, saved state; stop if requested.
        sizes = {"learning_rate": trained[0].learning_rate * rate, "episodes": step * settings.batch_episodes}
        metrics = batch_metrics(rollout, adaptive) | learned | sizes | clock.rates(settings.batch_episodes)
        if context.critic is not None:
            metrics |= critic_metrics(rollout, targets)
        elif rollout.episodes.turns is not None:
            metrics["left_out_dialogues"] = float(targets.is_estimated.count(False))
        adaptive = adapt(adaptive, rollout, settings)
        if settings.eval_prompts and settings.is_evaluated_after(step, settings.steps):
            evaluation = evaluate(context, evaluated[: settings.curve_prompts()])
            metrics |= evaluation.metrics
            job.append_samples(step, evaluation.samples)
        job.append_metrics(step, settings.steps, **metrics)
        stopping = processes.any(stop.received)
        if stopping or step % settings.save_every == 0:
            save_state(job, step, parts, dataclasses.asdict(adaptive))
        if stopping and step < settings.steps:
            raise Stopped

    # 6. The model, the critic, then the result.
    job.save_folder("model", lambda folder: save_model(context.policy, context.tokenizer, folder))
    if settings.keep_critic:
        job.save_folder("critic", lambda folder: save_critic(context.critic, context.tokenizer, folder))
    result = summary(context, job, prompts, evaluated)
    job.write_result(result | {"seconds": time.monotonic() - started} | path_summary(context.policy))
    processes.close()


def load_demonstrations(context: TrainingContext, job: JobDirectory) -> list[Example]:
    """Return the demonstrations to imitate beside the reward; none without ptx_coefficient. Raises BadInput."""
    settings = context.settings
    if not settings.ptx_coefficient:
        return []
    rows = [row for row in read_demonstrations(job) if row.split != "held_out"]
    if not rows:
        raise BadInput("demonstrations.jsonl has only held-out rows: add others, or set ptx_coefficient to 0")
    positions = max_positions(context.policy.config)
    examples = [encode_demonstration(context.tokenizer, row, settings, positions=positions) for row in rows]
    check_positions(context.policy, [example.tokens for example in examples], 0)
    return examples


def trained_models(context: TrainingContext) -> list[TrainedModel]:
    """Return the policy, and the critic if there is one, with their optimizers."""
    settings = context.settings
    critic_default = peak_learning_rate(
        settings, context.critic if is_separate_critic(context.critic) else context.policy
    )
    if isinstance(context.critic, RewardTrunkCritic):
        critic_default = HEAD_LEARNING_RATE
    rates = {
        "policy": peak_learning_rate(settings, context.policy),
        "critic": settings.critic_learning_rate or critic_default,
    }
    models = {"policy": context.policy} | ({} if context.critic is None else {"critic": context.critic})
    return [
        TrainedModel(name, model, adamw(model, settings.weight_decay, adam_epsilon(settings, model)), rates[name])
        for name, model in models.items()
    ]


def state_parts(trained: Sequence[TrainedModel]) -> dict[str, Any]:
    """Return the models and optimizers in a saved state, by name."""
    parts = {part.name: part.model for part in trained}
    return parts | {f"{part.name}_optimizer": part.optimizer for part in trained}


def resume(job: JobDirectory, parts: dict[str, Any], settings: PpoConfig) -> tuple[int, AdaptiveState]:
    """Load the saved state into the parts and return its step; 0 for a new job. Later metrics are removed."""
    step, adaptive = 0, AdaptiveState(settings.kl_coefficient)
    if job.state is not None:
        step, extra = load_state(job.state, parts)
        adaptive = AdaptiveState(**extra)
    job.truncate_metrics(step)
    return step, adaptive


def adapt(adaptive: AdaptiveState, rollout: Rollout, settings: PpoConfig) -> AdaptiveState:
    """Return the KL coefficient and the moving baseline for the next batch."""
    coefficient, baseline = adaptive.kl_coefficient, adaptive.baseline
    if settings.kl_target:
        kl = float(rollout.divergences().mean())
        coefficient = next_kl_coefficient(
            coefficient, kl, settings.kl_target, settings.kl_horizon, settings.batch_episodes
        )
    mean = mean_reward_of_ended(rollout, adaptive.kl_coefficient, settings) if settings.baseline_decay else None
    if mean is not None:
        baseline = mean if baseline is None else baseline + (1 - settings.baseline_decay) * (mean - baseline)
    return AdaptiveState(coefficient, baseline)


def batch_metrics(rollout: Rollout, adaptive: AdaptiveState) -> dict[str, float]:
    """Return the metrics of a rollout before any update."""
    reward, kl = float(rollout.scores.mean()), float(rollout.divergences().mean())
    truncated = rollout.episodes.truncated()
    ended = [finished and not cut for finished, cut in zip(rollout.finished, truncated, strict=True)]
    return {
        "reward": reward,
        "kl": kl,
        "objective": reward - adaptive.kl_coefficient * kl,
        "kl_coefficient": adaptive.kl_coefficient,
        "tokens": float(rollout.lengths().sum()),
        "completion_tokens": float(rollout.lengths().float().mean()),
        "ended_fraction": sum(ended) / len(ended),
        "cut_off_completions": float(len(rollout.finished) - sum(rollout.finished)),
    } | ({} if rollout.episodes.turns is None else {"truncated_dialogues": float(sum(truncated))})


def critic_metrics(rollout: Rollout, targets: Targets) -> dict[str, float]:
    """Return the share of the variance of returns that the values before the update explain; nothing if all are equal.

    1 − Var(returns − values) / Var(returns) over completion tokens: 1 is perfect, 0 is no better than their mean.
    """
    values, returns = torch.cat(rollout.values).double(), torch.cat(targets.returns).double()
    variance = float(returns.var(correction=0))
    if not variance:
        return {}
    return {"explained_variance": 1 - float((returns - values).var(correction=0)) / variance}


def summary(
    context: TrainingContext, job: JobDirectory, prompts: Sequence[Prompt], evaluated: Sequence[Prompt]
) -> dict[str, Any]:
    """Return result.json except for the time.

    Reward and KL are those of the evaluation prompts, or of the last batch without evaluation.
    """
    last, settings = job.metrics()[-1], context.settings
    result = {"program": "ppo", "steps": settings.steps, "truncated_prompts": sum(p.truncated for p in prompts)}
    result |= {"processes": context.processes.count}
    if context.critic is not None:
        result |= {"critic_start": "critic_model" if settings.critic_model else "new"}
    counts = ("cut_off_completions", "truncated_dialogues", "left_out_dialogues")
    result |= {name: sum(line[name] for line in job.metrics()) for name in counts if name in last}
    result |= {name: last[name] for name in ("reward", "kl", "kl_coefficient")}
    if settings.eval_prompts:
        result |= {"evaluated_on": evaluated[0].row.get("split", "train")}
    return result | measure_policy(context, job, evaluated, float(last["kl_coefficient"]))


class Clock:
    """Seconds spent in each phase of a step."""

    def __init__(self) -> None:
        self._laps: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, phase: str) -> None:
        now = time.monotonic()
        self._laps[f"seconds_{phase}"], self._last = now - self._last, now

    def rates(self, episodes: int) -> dict[str, float]:
        return self._laps | {"episodes_per_second": episodes / sum(self._laps.values())}


if __name__ == "__main__":
    run_program(main, PpoConfig)
