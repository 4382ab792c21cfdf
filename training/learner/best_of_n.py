"""best_of_n: let the policy write n completions of every prompt, and imitate the one with the highest reward.

    python -m training.learner.best_of_n JOB_DIR
    accelerate launch --num_processes 2 -m training.learner.best_of_n JOB_DIR

Files in:

    config.json    settings that differ from the defaults below; `model` is required
    prompts.jsonl  {"prompt_id": 7, "messages": [{"role": "user", "content": "..."}]}, one prompt per line

A prompt with `"split": "held_out"` is used for evaluation only; without any, training prompts are evaluated.
`"references": ["..."]` are right answers, for reward terms that compare with them.

Files out:

    model/         the policy, a Hugging Face folder
    metrics.jsonl  one line per step: of sampling the rewards of all completions and of the picks, of imitation the loss
    picks.jsonl    the picks of the last iteration: {"prompt_id": 7, "text": "...", "reward": 0.5, "imitated": true}
    samples_at_steps.jsonl  completions of the first evaluation prompts at the start and at each evaluation
    measured_samples.jsonl  as ppo writes it
    result.json    reward, KL and objective on the evaluation prompts, and the best attainable objective, as ppo reports
                   them; figures of the picks; written last
    state/         state to resume from

Steps:

1. Load the models and the prompts.
2. Make the optimizer, and load the state of an earlier run.
3. Sampling step: n completions of `sampling_prompts` prompts from the newest policy; the best of each is picked. Repeat
   until there are `prompts_per_iteration` picks.
4. Leave out the picks below the threshold.
5. Imitation step: one optimizer step on about `batch_completions` picks. Repeat for `epochs` passes.
6. Write metrics, evaluate, save, after every step. Repeat from 3, `iterations` times.
7. Write the model and the picks, then the result.

SIGTERM stops the program between two steps with its state saved; the same command resumes. Every random choice is a
function of the seed, the iteration and the step, so a resumed run ends in the same bits as one without a stop.

The picks of one iteration come from the best-of-n distribution of the policy, which has no parameters to tune and a
known divergence: at most log n − (n − 1)/n nats from the policy that was sampled (policy/optimality.py). The loss is
that of sft: the negative log-likelihood of the completions' tokens as sampled, EOS included. It is minimal where the
policy is that distribution. Best of n, i times in a row, is best of n to the power of i.

| detail | published | here |
|---|---|---|
| best of n by a reward model | Stiennon et al. 2020; Nakano et al. 2021 | followed |
| imitation of the best of n | Dong et al. 2023, "RAFT", algorithm 1; Llama 2 (2023), §3.2.3 | followed |
| iterations | RAFT; Gulcehre et al. 2023, "ReST" | followed: every iteration samples the newest policy |
| threshold on the reward | ReST, §3: all completions above it | changed: of the picks only, by reward or quantile |
| KL penalty | RAFT, §3.3: may be subtracted from the reward | none: n, iterations and passes limit the divergence |
| learning rate schedule | | the decay starts again in every iteration |
"""

import dataclasses
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from training.learner.models.generic_forward import path_summary
from training.learner.models.imitation import accumulate_gradients, total_weight
from training.learner.models.saving import save_model
from training.learner.policy.context import as_ppo_settings, load_context, load_prompts, split_prompts
from training.learner.policy.dialogues import sample_episodes
from training.learner.policy.evaluation import (
    evaluate,
    first_samples,
    measure_policy,
    rewards_of,
)
from training.learner.policy.optimality import best_of_n_kl
from training.learner.policy.picks import (
    Pick,
    as_example,
    imitated_picks,
    imitation_steps,
    picks_of,
    plan_imitation,
    threshold_of,
)
from training.learner.policy.rollout import TrainingContext, prompts_of_step
from training.learner.runtime.config import PpoConfig
from training.learner.runtime.config.best_of_n import BestOfNConfig
from training.learner.runtime.jobdir import BadInput, JobDirectory, Stopped
from training.learner.runtime.optimization import (
    adamw,
    check_finite,
    learning_rate_factor,
    load_state,
    peak_learning_rate,
    save_state,
    take_step,
)
from training.learner.runtime.program import run_program
from training.learner.runtime.start import start_program
from training.learner.text.messages import Prompt, share


@dataclasses.dataclass
class Progress:
    """Position of a run, saved beside the weights."""

    step: int = 0  # sampling and imitation steps of all iterations
    iteration: int = 1
    imitated: int = 0  # imitation steps of this iteration
    picks: list[Pick] = dataclasses.field(default_factory=list)  # of this iteration


def main(job_dir: Path) -> None:
    start = start_program(job_dir, BestOfNConfig)
    if start is None:
        return
    settings, job, processes, stop, started = start

    # 1. Models and prompts.
    context = load_context(ppo_settings(settings), processes)
    prompts = load_prompts(context, job)
    training, evaluated = split_prompts(prompts)

    # 2. Optimizer, and the state of an earlier run.
    optimizer = adamw(context.policy, settings.weight_decay)
    peak_rate = peak_learning_rate(settings, context.policy)
    parts = {"policy": context.policy, "optimizer": optimizer}
    progress = resume(job, parts)
    if progress.step == 0 and settings.eval_prompts:
        job.append_samples(0, first_samples(context, evaluated[: context.settings.curve_prompts()]))

    while not is_done(progress, settings):
        progress.step += 1
        if len(progress.picks) < settings.prompts_per_iteration:
            # 3. Completions of the next prompts, and the best of each.
            picks, metrics = sampling_step(context, training, progress, settings)
            progress.picks += picks
        else:
            # 4. The picks that reach the threshold; a resumed run selects the same.
            picks = imitated_picks(progress.picks, settings)
            check_picks(picks, progress, settings)
            plan = plan_imitation(len(picks), progress.iteration, settings)
            # 5. A batch of them.
            batch = [picks[i] for i in plan[progress.imitated]]
            progress.imitated += 1
            rate = peak_rate * learning_rate_factor(progress.imitated, len(plan), settings)
            loss = imitate(context, batch)
            check_finite("the loss", loss, progress.step)
            parameters = context.policy.parameters()
            norm = take_step(optimizer, parameters, rate, settings.max_gradient_norm, progress.step)
            metrics = {"loss": loss, "learning_rate": rate, "gradient_norm": norm}
            metrics["tokens"] = float(sum(len(as_example(pick).tokens) for pick in batch))
            if settings.eval_prompts and settings.is_evaluated_after(progress.imitated, len(plan)):
                evaluation = evaluate(context, evaluated[: context.settings.curve_prompts()])
                metrics |= evaluation.metrics
                job.append_samples(progress.step, evaluation.samples)

        # 6. Metrics, saved state; stop if requested.
        job.append_metrics(progress.step, total_steps(progress, settings), **metrics)
        if progress.iteration < settings.iterations and is_imitated(progress, settings):
            progress = Progress(progress.step, progress.iteration + 1)
        stopping = processes.any(stop.received)
        if stopping or progress.step % settings.save_every == 0:
            save_state(job, progress.step, parts, as_plain(progress))
        if stopping and not is_done(progress, settings):
            raise Stopped

    # 7. The model and the picks, then the result.
    job.save_folder("model", lambda folder: save_model(context.policy, context.tokenizer, folder))
    job.write_rows("picks.jsonl", picks_as_rows(progress.picks, settings))
    result = summary(job, progress, settings) | policy_result(context, job, evaluated, settings)
    result |= {"truncated_prompts": sum(prompt.truncated for prompt in prompts), "processes": processes.count}
    job.write_result(result | {"seconds": time.monotonic() - started} | path_summary(context.policy))
    processes.close()


def ppo_settings(settings: BestOfNConfig) -> PpoConfig:
    """Return settings with which the functions of ppo sample, score and evaluate as best_of_n is set."""
    n = settings.completions_per_prompt
    return as_ppo_settings(
        settings, batch_episodes=settings.sampling_prompts * n, completions_per_prompt=n, steps=settings.sampling_steps
    )


def resume(job: JobDirectory, parts: dict[str, Any]) -> Progress:
    """Load the saved state into the parts and return its progress. Later metrics are removed."""
    progress = Progress()
    if job.state is not None:
        step, extra = load_state(job.state, parts)
        progress = Progress(step, extra["iteration"], extra["imitated"], [Pick(*values) for values in extra["picks"]])
    job.truncate_metrics(progress.step)
    return progress


def as_plain(progress: Progress) -> dict[str, Any]:
    """Return the progress as plain values for a saved state."""
    picks = [tuple(pick) for pick in progress.picks]
    return {"iteration": progress.iteration, "imitated": progress.imitated, "picks": picks}


def is_imitated(progress: Progress, settings: BestOfNConfig) -> bool:
    """Return whether all steps of the iteration are done."""
    if len(progress.picks) < settings.prompts_per_iteration:
        return False
    return progress.imitated == imitation_steps(len(imitated_picks(progress.picks, settings)), settings)


def is_done(progress: Progress, settings: BestOfNConfig) -> bool:
    return progress.iteration == settings.iterations and is_imitated(progress, settings)


def total_steps(progress: Progress, settings: BestOfNConfig) -> int:
    """Return the steps of the whole run; those of iterations that have not picked yet are an upper bound."""
    sampled = len(progress.picks) // settings.sampling_prompts
    before = progress.step - sampled - progress.imitated
    is_sampled = sampled == settings.sampling_steps
    count = len(imitated_picks(progress.picks, settings)) if is_sampled else settings.prompts_per_iteration
    at_most = settings.sampling_steps + imitation_steps(settings.prompts_per_iteration, settings)
    later = (settings.iterations - progress.iteration) * at_most
    return before + settings.sampling_steps + imitation_steps(count, settings) + later


def sampling_step(
    context: TrainingContext, prompts: Sequence[Prompt], progress: Progress, settings: BestOfNConfig
) -> tuple[list[Pick], dict[str, float]]:
    """Return the picks of the next prompts, and the metrics of all their completions."""
    sampled = len(progress.picks) // settings.sampling_prompts
    number = (progress.iteration - 1) * settings.sampling_steps + sampled + 1
    episodes, answers = sample_episodes(context, context.policy, *prompts_of_step(prompts, number, context.settings))
    rewards = rewards_of(context, episodes, answers)
    check_finite("the sum of the rewards", float(rewards.sum()), progress.step)
    picks = picks_of(episodes, answers, rewards, settings.completions_per_prompt)
    finished = sum(answer.finished for answer in answers)
    return picks, {
        "reward": float(rewards.mean()),
        "picked_reward": fmean(pick.reward for pick in picks),
        "tokens": float(sum(episodes.policy_lengths())),
        "completion_tokens": fmean(episodes.policy_lengths()),
        "ended_fraction": finished / len(answers),
        "cut_off_completions": float(len(answers) - finished),
    }


def check_picks(picks: Sequence[Pick], progress: Progress, settings: BestOfNConfig) -> None:
    """Raise BadInput if no pick reaches the threshold."""
    if not picks:
        best = max(pick.reward for pick in progress.picks)
        raise BadInput(
            f"no pick of iteration {progress.iteration} reaches min_reward, {settings.min_reward:g}: "
            f"the highest reward is {best:g}; set min_reward lower, or threshold to quantile"
        )


def imitate(context: TrainingContext, picks: Sequence[Pick]) -> float:
    """Add up the gradient of the mean loss per token of the picks over all processes, and return that mean."""
    processes = context.processes
    examples = [as_example(pick) for pick in picks]
    mine = share(examples, processes.rank, processes.count)
    weight = total_weight(examples)
    return accumulate_gradients(context.policy, mine, weight, context.settings.dtype, processes, context.micro_batches)


def picks_as_rows(picks: Sequence[Pick], settings: BestOfNConfig) -> Iterator[dict[str, Any]]:
    """Yield the rows of picks.jsonl."""
    lowest = threshold_of([pick.reward for pick in picks], settings)
    for pick in picks:
        is_imitated = lowest is None or pick.reward >= lowest
        yield {"prompt_id": pick.prompt_id, "text": pick.text, "reward": pick.reward, "imitated": is_imitated}


def summary(job: JobDirectory, progress: Progress, settings: BestOfNConfig) -> dict[str, Any]:
    """Return the figures of the training: the last loss, and rewards of the last iteration.

    kl_bound: upper bound of the KL of exact best of n, over all iterations, from the initial policy, in nats. None
    with a threshold. A policy that imitates few picks in many passes can exceed it.
    """
    lines = job.metrics()
    picks, imitated = progress.picks, imitated_picks(progress.picks, settings)
    sampled = [line for line in lines if "picked_reward" in line][-settings.sampling_steps :]
    result = {
        "program": "best_of_n",
        "steps": progress.step,
        "loss": lines[-1]["loss"],
        "sampled_reward": fmean(line["reward"] for line in sampled),
        "picked_reward": fmean(pick.reward for pick in picks),
        "imitated_reward": fmean(pick.reward for pick in imitated),
        "picks": len(picks),
        "imitated_picks": len(imitated),
        "cut_off_completions": sum(line.get("cut_off_completions", 0.0) for line in lines),
    }
    if settings.threshold == "none":
        result["kl_bound"] = best_of_n_kl(settings.completions_per_prompt**settings.iterations)
    return result


def policy_result(
    context: TrainingContext, job: JobDirectory, evaluated: Sequence[Prompt], settings: BestOfNConfig
) -> dict[str, Any]:
    """Return reward, KL and objective of the policy on the evaluation prompts, as ppo does; none without evaluation."""
    if not settings.eval_prompts:
        return {}
    result = measure_policy(context, job, evaluated, settings.kl_coefficient)
    return result | {"evaluated_on": evaluated[0].row.get("split", "train")}


if __name__ == "__main__":
    run_program(main, BestOfNConfig)
