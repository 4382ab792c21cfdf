"""kto: learn a policy from single labels: completions that are desirable or undesirable, without comparing them.

    python -m training.learner.kto JOB_DIR
    accelerate launch --num_processes 2 -m training.learner.kto JOB_DIR

Files in (one of the last two, or both):

    config.json     settings that differ from the defaults below; `model` is required
    labels.jsonl    {"messages": [{"role": "user", "content": "..."}], "completion": "...", "desirable": true,
                     "split": "train", "weight": 1}; a dialogue has its "turns" instead of "completion"
    rankings.jsonl  rankings as for `reward`; labels are derived from their flags, ratings and ranks (`labels_from`)

Labels with the split "held_out" are used for evaluation only. Of a dialogue all turns of the policy are learned; the
user's turns are only read.

Files out:

    model/         the policy, a Hugging Face folder
    metrics.jsonl  one line per step: loss, reference point, rewards β·log(π/π_ref) of both kinds of labels
    samples_at_steps.jsonl  completions of the first held-out prompts at the start and at each evaluation
    result.json    evaluation on the held-out labels, counts of labels; written last
    state/         state to resume from

Steps:

1. Read the labels and encode them as tokens; load the policy and the frozen reference.
2. Compute the log-probs of the labelled completions under the reference, and load the state of an earlier run.
3. Estimate the reference point of the next batch, and train on its labels.
4. Write metrics, evaluate on held-out labels, save. Repeat from 3 for `epochs` passes.
5. Write the model, then the result.

SIGTERM stops the program between two steps with its state saved; the same command resumes. Every random choice is a
function of the seed and the pass, so a resumed run ends in the same bits as one without a stop.

The loss is in preferences/kto_loss.py.

| detail | published (Ethayarajh et al. 2024) | here |
|---|---|---|
| value of a completion, λ_D, λ_U, β = 0.1 | equation 8 | followed |
| reference point from mismatched pairs | of the microbatch, shifted by one | of the batch, with the next other prompt |
| no gradient through the reference point, at least 0 | §4 | followed |
| λ_D·n_D / (λ_U·n_U) between 1 and 3/2 | §4 | 1 (`balance_labels`), by the labels of the whole file |
| preferred: desirable, other: undesirable | §4 | first and last rank; flags and ratings come before |
| learning rate | 5e-7 and 5e-6, 7 and more billion weights | as the other programs here, by size |
"""

import itertools
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from training.learner.models.generic_forward import path_summary
from training.learner.models.oom_retry import MicroBatches
from training.learner.models.saving import save_model
from training.learner.policy.fixed_samples import FixedSamples
from training.learner.policy.kto_updates import (
    Models,
    accumulate_gradients,
    episodes_of,
    estimate_reference_point,
    evaluate,
    identity,
    mismatched_pairs,
    reference_log_probs,
)
from training.learner.policy.reference import load_reference, load_trained_policy
from training.learner.preferences.kto_loss import LabelWeights, balanced_weights
from training.learner.preferences.labels import LabelData, LabelledCompletion, PromptLabels, read_labels
from training.learner.runtime.config.kto import KtoConfig
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
from training.learner.runtime.processes import Processes
from training.learner.runtime.program import run_program
from training.learner.runtime.start import start_program
from training.learner.sampling.sampler import check_positions, fewest_positions
from training.learner.text.messages import shuffled


def main(job_dir: Path) -> None:
    start = start_program(job_dir, KtoConfig)
    if start is None:
        return
    settings, job, processes, stop, started = start

    # 1. Labels as tokens, policy and reference.
    torch.manual_seed(settings.seed)
    models, tokenizer = load_models(settings, processes)
    data = read_labels(tokenizer, *label_files(job), settings, fewest_positions(models.policy, models.reference))
    check_lengths(models, data)
    weights = label_weights(data, settings)
    plan = plan_steps(data.train, settings)

    # 2. Log-probs under the reference, optimizer, and the state of an earlier run.
    known = reference_log_probs(models, data.train)
    held_out = [one for group in data.held_out for one in group]
    known_held_out = reference_log_probs(models, data.held_out)
    held_out_pairs = mismatched_pairs(models, held_out)
    optimizer = adamw(models.policy, settings.weight_decay)
    peak_rate = peak_learning_rate(settings, models.policy)
    parts, step = {"policy": models.policy, "optimizer": optimizer}, 0
    if job.state is not None:
        step, _ = load_state(job.state, parts)
    job.truncate_metrics(step)
    samples = FixedSamples(models.policy, tokenizer, itertools.chain(*label_files(job)), settings)
    if step == 0:
        samples.write(job, 0)

    while step < len(plan):
        # 3. A batch of about batch_labels labelled completions.
        step += 1
        batch = plan[step - 1]
        rate = peak_rate * learning_rate_factor(step, len(plan), settings)
        point = estimate_reference_point(models, mismatched_pairs(models, batch))
        metrics = accumulate_gradients(models, batch, [known[identity(one)] for one in batch], point, weights)
        check_finite("the loss", metrics["loss"], step)
        norm = take_step(optimizer, models.policy.parameters(), rate, settings.max_gradient_norm, step)

        # 4. Metrics, evaluation, saved state; stop if requested.
        metrics |= {"learning_rate": rate, "gradient_norm": norm}
        metrics["tokens"] = float(sum(len(one.prompt) + len(one.completion) for one in batch))
        due = step == len(plan) or settings.is_evaluated_after(step, len(plan))
        if held_out and due:
            metrics |= evaluate(
                models, held_out, [known_held_out[identity(one)] for one in held_out], held_out_pairs, weights
            )
        job.append_metrics(step, len(plan), **metrics)
        if due:
            samples.write(job, step)
        stopping = processes.any(stop.received)
        if stopping or step % settings.save_every == 0:
            save_state(job, step, parts, {})
        if stopping and step < len(plan):
            raise Stopped

    # 5. The model, then the result.
    job.save_folder("model", lambda folder: save_model(models.policy, tokenizer, folder))
    result = {"program": "kto", "steps": step, "seconds": time.monotonic() - started, "processes": processes.count}
    job.write_result(result | summary(job, data, weights) | path_summary(models.policy))
    processes.close()


def load_models(settings: KtoConfig, processes: Processes) -> tuple[Models, Any]:
    """Return the models and the policy's tokenizer."""
    policy, tokenizer = load_trained_policy(settings)
    reference = load_reference(policy, tokenizer, settings, settings.reference_model)
    return Models(policy, reference, settings, processes, MicroBatches(settings.micro_batch_tokens)), tokenizer


def label_files(job: JobDirectory) -> tuple[Iterable[dict[str, Any]], Iterable[dict[str, Any]]]:
    """Return the rows of rankings.jsonl and labels.jsonl; none of a file that is missing. Raises BadInput for both."""
    names = ("rankings.jsonl", "labels.jsonl")
    present = [name for name in names if (job.path / name).exists()]
    if not present:
        raise BadInput(f"{job.path} has neither rankings.jsonl nor labels.jsonl: add one of them")
    rankings, labels = (job.rows(name) if name in present else iter(()) for name in names)
    return rankings, labels


def check_lengths(models: Models, data: LabelData) -> None:
    """Raise BadInput if a text could be too long under any prompt: mismatched pairs may combine them.

    Dialogues need room after their own prompt only; `mismatched_pairs` leaves out pairs that do not fit.
    """
    for groups in (data.train, data.held_out):
        labelled = [one for group in groups for one in group]
        longest = max((len(one.completion) for one in labelled if not one.turns), default=0)
        for name, model in (("the model", models.policy), ("the reference model", models.reference)):
            check_positions(model, [group[0].prompt for group in groups], longest, name)
            check_positions(model, episodes_of(labelled).sequences(), 0, name)


def label_weights(data: LabelData, settings: KtoConfig) -> LabelWeights:
    """Return λ_D and λ_U for the training labels."""
    labelled = [one for group in data.train for one in group]
    weights = LabelWeights(settings.desirable_weight, settings.undesirable_weight)
    desirable, undesirable = sum(one.desirable for one in labelled), sum(one.undesirable for one in labelled)
    return balanced_weights(weights, desirable, undesirable, settings.balance_labels)


def plan_steps(groups: Sequence[PromptLabels], settings: KtoConfig) -> list[list[LabelledCompletion]]:
    """Return the labelled completions of each step: prompts are shuffled in every pass and divided evenly.

    Every step has at least two prompts, which its reference point needs.
    """
    parts = min(max(round(sum(map(len, groups)) / settings.batch_labels), 1), len(groups) // 2)
    plan = []
    for epoch in range(settings.epochs):
        order = [groups[i] for i in shuffled(len(groups), settings.seed, epoch)]
        cuts = [len(order) * part // parts for part in range(parts + 1)]
        plan += [[one for group in order[low:high] for one in group] for low, high in itertools.pairwise(cuts)]
    return plan


def summary(job: JobDirectory, data: LabelData, weights: LabelWeights) -> dict[str, float]:
    """Return the training's figures for result.json: last metrics, weights, and counts of labels."""
    last = job.metrics()[-1]
    names = ("loss", "reference_point", "held_out_loss", "held_out_separation")
    return {name: last[name] for name in names if name in last} | {
        "desirable_labels": data.desirable,
        "undesirable_labels": data.undesirable,
        "unlabelled_completions": data.unlabelled,
        "labelled_prompts": len(data.train),
        "desirable_weight": weights.desirable,
        "undesirable_weight": weights.undesirable,
        "truncated_prompts": data.truncated_prompts,
        "truncated_completions": data.truncated_completions,
        "dropped_held_out_labels": data.dropped_held_out,
    }


if __name__ == "__main__":
    run_program(main, KtoConfig)
