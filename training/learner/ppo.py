"""ppo: improves a policy against rewards while it stays close to a reference, by PPO or one of its small relatives.

    python -m training.learner.ppo JOB_DIR
    accelerate launch --num_processes 2 -m training.learner.ppo JOB_DIR

Reads config.json (`PpoConfig`) and prompts.jsonl, rows of `{"prompt_id": 7, "messages": [...], "references": [...]}`;
those with `"split": "held_out"` serve for evaluation only. Writes model/. Every random choice is a function of the seed
and the step, so there is no random state to save, and a run stopped and resumed ends in the same bits.

Metrics of a step: reward, kl and objective (reward − β·kl). The result tells the objective with its interval, and the
highest that any policy could reach where that can be known: see optimality.report.

`algorithm` says where advantages come from: a critic and GAE (ppo), the other completions of the prompt (rloo, grpo) or
a baseline (reinforce). All the rest is the same.

Where time or memory matters, recommended: `critic: reward_model`, and 2 epochs of 2 minibatches in place of 4 of 1. As
many steps cost half of the passes, and a critic that is a head on the reward model's trunk costs next to nothing beside
the pass that scores; in our measurements it learns as well as a critic of its own, which starts from the same values. A
critic on the policy's trunk learns less a batch, since it starts from nothing (training/LOG.md).

What is followed of the details published by Huang et al. («The N+ implementation details of RLHF with PPO», 2024, which
reproduces OpenAI's code of 2019; «The 37 implementation details of PPO», 2022), and what is not:

| detail | here |
|---|---|
| reward at the last token, KL penalty at every token | followed; the last token is the end token if there is one |
| scores normalised on the reference's samples | followed: stored in the reward model's folder |
| a completion without end gets a fixed low score | changed: a penalty is taken from its score, still in order |
| KL by k1, adaptive coefficient (error cut at ±0.2) | followed; the coefficient is fixed by default |
| reward whitening that keeps the mean | followed: whiten_rewards; off by default, normalised scores need none |
| advantage whitening over the batch, masked | followed; with the statistics of the whole batch in every process |
| samples of one length, cut at their end token after | changed: completions stop at their end, nothing is padded |
| dropout off | followed, in every model |
| Adam with epsilon 1e-5 | for small models, see adam_epsilon; with PyTorch's bias correction (TensorFlow's differs) |
| learning rate annealed linearly | followed; a step of the schedule is a batch |
| value head on the policy's trunk, zero at first | one there or on the reward model, or a model (see `critic`) |
| clipped ratio, clipped value, ½ in the value loss | followed |
| one loss, value coefficient 0.1, no gradient clipping | followed on a shared trunk; else one each; both clip |
| means over the tokens of a micro-batch | changed: of the minibatch on all processes, so no division changes it |
| temperature divides the logits in every pass | followed |
| top-p while training | not offered: the policy that samples must be the one that is improved |
"""

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from torch import Tensor

from training.learner.estimators import ALGORITHMS
from training.learner.models.generic_forward import path_summary
from training.learner.models.loading import freeze, load_critic, load_policy, load_tokenizer, save_model
from training.learner.models.lora import AdapterView, LoraConfig, SharedBase, critic_view, lora_config
from training.learner.models.oom_retry import MicroBatches
from training.learner.models.reward_model import load_reward_model
from training.learner.models.token_outputs import PolicyTrunkCritic, RewardTrunkCritic, is_separate_critic
from training.learner.policy.evaluation import evaluate, evaluation_result, how_close, reference_rewards
from training.learner.policy.losses import next_kl_coefficient
from training.learner.policy.rollout import (
    Rollout,
    Run,
    check_rollout,
    completion_rewards,
    prompts_of_step,
    score_episodes,
    targets_of,
    write_episodes,
)
from training.learner.policy.updates import Learner, learn, minibatches
from training.learner.rewards.reward_function import (
    Scoring,
    check_references,
    check_scoring_positions,
    reward_function,
    same_tokens,
)
from training.learner.runtime.config import HEAD_LEARNING_RATE, PpoConfig
from training.learner.runtime.jobdir import BadInput, JobDirectory, Stopped, StopSignal
from training.learner.runtime.optimization import (
    adam_epsilon,
    adamw,
    learning_rate_factor,
    load_state,
    peak_learning_rate,
    save_state,
)
from training.learner.runtime.processes import Processes
from training.learner.runtime.program import run_program
from training.learner.sampling.sampler import check_positions, sampling_params_for
from training.learner.text.messages import Prompt, read_prompts


@dataclasses.dataclass
class Adapted:
    """What adapts from batch to batch beside the weights."""

    kl_coefficient: float
    baseline: float | None = None  # reinforce's moving one; None before the first batch


def main(job_dir: Path) -> None:
    processes, stop = Processes(), StopSignal()
    job = JobDirectory(job_dir, processes.is_first)
    processes.wait()
    if job.result() is not None:
        return
    settings = PpoConfig.from_json(job.config())
    started = time.monotonic()

    # 1. The models and the prompts.
    run = prepare(settings, processes)
    prompts = prompts_of(run, job)
    training, evaluated = split(prompts)

    # 2. The optimisers; and where an earlier run stopped.
    learners = learners_of(run)
    parts = saved_parts(learners)
    step, adapted = resumed(job, parts, settings)

    # 3. What the reference earns where the policy will be evaluated: it tells what is attainable.
    attainable = reference_rewards(run, evaluated)

    while step < settings.steps:
        # 4. Episodes from the newest policy. A stop up to here forgets them: the step will be taken again, the same.
        clock = Clock()
        episodes, answers = write_episodes(run, run.policy, *prompts_of_step(training, step + 1, settings))
        clock.lap("sampling")
        rollout = score_episodes(run, episodes, answers, next(minibatches(step + 1, settings)))
        check_rollout(rollout, step + 1)
        clock.lap("scoring")
        if processes.any(stop.received):
            save_state(job, step, parts, dataclasses.asdict(adapted))
            raise Stopped

        # 5. Epochs of minibatches over them.
        step += 1
        rate = learning_rate_factor(step, settings.steps, settings)
        targets = targets_of(rollout, adapted.kl_coefficient, adapted.baseline, settings)
        learned = learn(run, learners, rollout, targets, adapted.kl_coefficient, step, rate)
        clock.lap("learning")

        # 6. Say how it goes, adapt, evaluate, save; stop when told to.
        sizes = {"learning_rate": learners[0].learning_rate * rate, "episodes": step * settings.batch_episodes}
        measured = describe(rollout, adapted) | learned | sizes | clock.rates(settings.batch_episodes)
        adapted = adapt(adapted, rollout, settings)
        if settings.eval_prompts and settings.is_evaluated_after(step, settings.steps):
            measured |= evaluate(run, evaluated[: settings.curve_prompts()])
        job.append_metrics(step, settings.steps, **measured)
        stopping = processes.any(stop.received)
        if stopping or step % settings.save_every == 0:
            save_state(job, step, parts, dataclasses.asdict(adapted))
        if stopping and step < settings.steps:
            raise Stopped

    # 7. The model, then the result.
    job.save_folder("model", lambda folder: save_model(run.policy, run.tokenizer, folder))
    result = summary(run, job, prompts, evaluated, attainable)
    job.write_result(result | {"seconds": time.monotonic() - started} | path_summary(run.policy))
    processes.close()


def prepare(settings: PpoConfig, processes: Processes) -> Run:
    """Every model, the reference frozen. Raises BadInput when one cannot be loaded or does not fit the others."""
    model, tokenizer = load_policy(settings.model)
    lora = lora_config(settings)
    base = None if lora is None else SharedBase(model, settings.model)
    policy: Any = model if base is None else AdapterView(base, "policy", lora, settings.seed)
    scoring = load_reward_model(settings.reward_model, base=base) if settings.reward_model else None
    critic = critic_of(settings, policy, tokenizer, scoring)
    reference = (
        AdapterView(base, "", None) if base and not settings.reference_model else load_reference(settings, tokenizer)
    )
    params = sampling_params_for(
        model, tokenizer, settings.max_completion_tokens, settings.temperature, 1.0, settings.seed
    )
    reward = reward_function(settings, tokenizer, scoring)
    micro_batches = MicroBatches(settings.micro_batch_tokens)
    sampling_rows = MicroBatches(settings.batch_episodes, unit="completions")
    return Run(settings, processes, policy, freeze(reference), critic, scoring, reward, tokenizer, params,
               micro_batches, sampling_rows)  # fmt: skip


def critic_of(settings: PpoConfig, policy: Any, tokenizer: Any, scoring: Scoring | None) -> Any:
    """What says values; None where advantages need none. Raises BadInput when it cannot be what the settings say."""
    if not ALGORITHMS[settings.algorithm].needs_critic:
        return None
    if settings.critic == "shared":
        return PolicyTrunkCritic(policy)
    if settings.critic == "reward_model":
        if scoring is None or not same_tokens(tokenizer, scoring[1]):
            raise BadInput("a critic on the reward model needs one with the policy's tokenizer: set critic to separate")
        return RewardTrunkCritic(scoring[0])
    source = critic_folder(settings, tokenizer)
    if isinstance(policy, AdapterView):
        lora = cast(LoraConfig, policy.lora)
        return critic_view(policy.base, source, lora, settings.seed, is_asked_for=bool(settings.critic_model))
    return load_critic(source)


def prompts_of(run: Run, job: JobDirectory) -> list[Prompt]:
    """Those of the job. Raises BadInput where one lacks what a reward compares with, or leaves no room to answer."""
    prompts = read_prompts(run.tokenizer, job.rows("prompts.jsonl"), run.settings)
    check_references(run.settings, (prompt.row for prompt in prompts))
    readers = {"the model": run.policy, "the reference model": run.reference}
    if is_separate_critic(run.critic):
        readers["the critic"] = run.critic
    if isinstance(run.critic, RewardTrunkCritic):
        readers["the reward model, which the critic is a head on,"] = run.critic.trunk
    for who, reader in readers.items():
        check_positions(reader, [prompt.tokens for prompt in prompts], run.settings.max_completion_tokens, who)
    if run.scoring is not None:
        check_scoring_positions(run.scoring, [prompt.row for prompt in prompts], run.tokenizer, run.settings)
    return prompts


def load_reference(settings: PpoConfig, tokenizer: Any) -> Any:
    reference, reference_tokenizer = load_policy(settings.reference_model or settings.model)
    if not same_tokens(tokenizer, reference_tokenizer):
        raise BadInput("model and reference_model must have the same tokenizer")
    return reference


def critic_folder(settings: PpoConfig, tokenizer: Any) -> str:
    """What the critic starts from: as set; or the reward model if it reads the policy's tokens; or the policy."""
    candidate = settings.critic_model or settings.reward_model
    if candidate and same_tokens(tokenizer, load_tokenizer(candidate)):
        return candidate
    if settings.critic_model:
        raise BadInput("model and critic_model must have the same tokenizer")
    return settings.model


def split(prompts: Sequence[Prompt]) -> tuple[list[Prompt], list[Prompt]]:
    """Prompts to learn from, and those to be evaluated on: held-out ones, or the same. Raises BadInput without any."""
    training = [prompt for prompt in prompts if prompt.row.get("split") != "held_out"]
    if not training:
        raise BadInput("prompts.jsonl holds no prompt to learn from, only held-out ones")
    return training, [prompt for prompt in prompts if prompt.row.get("split") == "held_out"] or training


def learners_of(run: Run) -> list[Learner]:
    """The policy, and the critic if there is one, each with its optimiser."""
    settings = run.settings
    usual = peak_learning_rate(settings, run.critic if is_separate_critic(run.critic) else run.policy)
    if isinstance(run.critic, RewardTrunkCritic):
        usual = HEAD_LEARNING_RATE
    rates = {
        "policy": peak_learning_rate(settings, run.policy),
        "critic": settings.critic_learning_rate or usual,
    }
    models = {"policy": run.policy} | ({} if run.critic is None else {"critic": run.critic})
    return [
        Learner(name, model, adamw(model, settings.weight_decay, adam_epsilon(settings, model)), rates[name])
        for name, model in models.items()
    ]


def saved_parts(learners: Sequence[Learner]) -> dict[str, Any]:
    """What a run resumes from beside plain values, by name."""
    parts = {learner.name: learner.model for learner in learners}
    return parts | {f"{learner.name}_optimizer": learner.optimizer for learner in learners}


def resumed(job: JobDirectory, parts: dict[str, Any], settings: PpoConfig) -> tuple[int, Adapted]:
    """The step to go on from, the parts and metrics as they were at its end; 0 if the job is new."""
    step, adapted = 0, Adapted(settings.kl_coefficient)
    if job.state is not None:
        step, extra = load_state(job.state, parts)
        adapted = Adapted(**extra)
    job.truncate_metrics(step)
    return step, adapted


def adapt(adapted: Adapted, rollout: Rollout, settings: PpoConfig) -> Adapted:
    """What the next batch goes by."""
    coefficient, baseline = adapted.kl_coefficient, adapted.baseline
    if settings.kl_target:
        kl = float(rollout.divergences().mean())
        coefficient = next_kl_coefficient(
            coefficient, kl, settings.kl_target, settings.kl_horizon, settings.batch_episodes
        )
    if settings.baseline_decay:
        mean = float(completion_rewards(rollout, adapted.kl_coefficient, settings).mean())
        baseline = mean if baseline is None else baseline + (1 - settings.baseline_decay) * (mean - baseline)
    return Adapted(coefficient, baseline)


def describe(rollout: Rollout, adapted: Adapted) -> dict[str, float]:
    """What a batch of episodes says of the policy that wrote it."""
    reward, kl = float(rollout.scores.mean()), float(rollout.divergences().mean())
    return {
        "reward": reward,
        "kl": kl,
        "objective": reward - adapted.kl_coefficient * kl,
        "kl_coefficient": adapted.kl_coefficient,
        "completion_tokens": float(rollout.lengths().float().mean()),
        "ended_fraction": sum(rollout.finished) / len(rollout.finished),
        "cut_off_completions": float(len(rollout.finished) - sum(rollout.finished)),
    }


def summary(
    run: Run, job: JobDirectory, prompts: Sequence[Prompt], evaluated: Sequence[Prompt], attainable: Tensor | None
) -> dict[str, Any]:
    """result.json, but for the time: the last batch's figures, or those of the evaluation prompts if there are any."""
    last = job.metrics()[-1]
    result = {"program": "ppo", "steps": run.settings.steps, "truncated_prompts": sum(p.truncated for p in prompts)}
    result |= {"processes": run.processes.count}
    result |= {"cut_off_completions": sum(line["cut_off_completions"] for line in job.metrics())}
    result |= {name: last[name] for name in ("reward", "kl", "kl_coefficient")}
    if run.settings.eval_prompts:
        result |= evaluation_result(run, evaluated)
        result |= {"evaluated_on": evaluated[0].row.get("split", "train")}
    return result | how_close(run, evaluated, attainable, float(last["kl_coefficient"]))


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
