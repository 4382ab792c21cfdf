"""sft: fine-tune a policy on demonstrations, or train a small model and its tokenizer on them from scratch.

    python -m training.learner.sft JOB_DIR
    accelerate launch --num_processes 2 -m training.learner.sft JOB_DIR

Files in:

    config.json           settings that differ from the defaults below; `model` or `architecture` is required
    demonstrations.jsonl  {"messages": [{"role": "user", "content": "..."}], "completion": "...", "weight": 1};
                          a dialogue has its "turns" instead of "completion"

A demonstration with `"split": "held_out"` is used for evaluation only, one with another split for training only;
held_out_fraction holds out some of those without.

Files out:

    model/         the policy, a Hugging Face folder
    metrics.jsonl  one line per step: loss, held_out_loss, learning rate, gradient norm, tokens
    samples_at_steps.jsonl  completions of the first held-out prompts at the start and at each evaluation
    result.json    losses, held_out_loss_before too, and counts of truncated rows; written last
    state/         state to resume from

Steps:

1. Read the demonstrations, load or make the model, and encode the demonstrations as tokens.
2. Make the optimizer, and load the state of an earlier run, or measure the held-out loss before training.
3. Train on about `batch_tokens` tokens per step.
4. Write metrics, evaluate on held-out demonstrations, save. Repeat from 3 for `epochs` passes.
5. Write the model, then the result.

The loss is the mean negative log-likelihood of completion tokens, EOS included, weighted by row. Prompt tokens have the
weight prompt_loss_weight, which helps a model that has not been trained on the language yet. The user's turns of a
dialogue have it too; all turns of the policy are imitated.

SIGTERM stops the program between two steps with its state saved; the same command resumes. Every random choice is a
function of the seed and the pass, so a resumed run ends in the same bits as one without a stop.
"""

import hashlib
import json
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from training.learner.models.context_length import max_positions
from training.learner.models.generic_forward import path_summary
from training.learner.models.imitation import accumulate_gradients, mean_loss, total_weight
from training.learner.models.loading import build_policy, load_policy
from training.learner.models.oom_retry import MicroBatches
from training.learner.models.saving import save_model
from training.learner.policy.fixed_samples import FixedSamples
from training.learner.policy.reference import trained
from training.learner.runtime.config import SftConfig
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
from training.learner.sampling.sampler import check_positions
from training.learner.text import bpe
from training.learner.text.demonstrations import Demonstration, Example, encode_demonstration, read_demonstrations
from training.learner.text.messages import share, shuffled


def main(job_dir: Path) -> None:
    start = start_program(job_dir, SftConfig)
    if start is None:
        return
    settings, job, processes, stop, started = start

    # 1. Demonstrations, model, and training and held-out demonstrations as tokens.
    torch.manual_seed(settings.seed)
    demonstrations = read_demonstrations(job)
    model, tokenizer = prepare_policy(settings, demonstrations, job)
    policy = trained(model, settings)
    held_out_rows, rows = split(demonstrations, settings.held_out_fraction)
    held_out, examples = (encode_all(tokenizer, part, settings, policy) for part in (held_out_rows, rows))
    check_positions(policy, [example.tokens for example in examples + held_out], 0)
    plan = plan_steps([len(example.tokens) for example in examples], settings)

    # 2. Optimizer, and the state of an earlier run or the loss before training.
    optimizer = adamw(policy, settings.weight_decay)
    peak_rate = peak_learning_rate(settings, policy)
    micro_batches = MicroBatches(settings.micro_batch_tokens)
    parts, step = {"policy": policy, "optimizer": optimizer}, 0
    before: dict[str, Any] = {}
    if job.state is not None:
        step, before = load_state(job.state, parts)
    elif held_out:
        before = {"held_out_loss_before": mean_loss(policy, held_out, settings.dtype, processes, micro_batches)}
    job.truncate_metrics(step)
    samples = FixedSamples(policy, tokenizer, job.rows("demonstrations.jsonl"), settings)
    if step == 0:
        samples.write(job, 0)

    # 3. Steps of about batch_tokens tokens, in micro-batches of similar lengths.
    while step < len(plan):
        step += 1
        rate = peak_rate * learning_rate_factor(step, len(plan), settings)
        mine = share([examples[i] for i in plan[step - 1]], processes.rank, processes.count)
        weight = total_weight([examples[i] for i in plan[step - 1]])
        loss = accumulate_gradients(policy, mine, weight, settings.dtype, processes, micro_batches)
        check_finite("the loss", loss, step)
        norm = take_step(optimizer, policy.parameters(), rate, settings.max_gradient_norm, step)

        # 4. Metrics, evaluation, saved state; stop if requested.
        metrics = {"loss": loss, "learning_rate": rate, "gradient_norm": norm}
        metrics["tokens"] = sum(len(examples[i].tokens) for i in plan[step - 1])
        due = step == len(plan) or settings.is_evaluated_after(step, len(plan))
        if held_out and due:
            metrics["held_out_loss"] = mean_loss(policy, held_out, settings.dtype, processes, micro_batches)
        job.append_metrics(step, len(plan), **metrics)
        if due:
            samples.write(job, step)
        stopping = processes.any(stop.received)
        if stopping or step % settings.save_every == 0:
            save_state(job, step, parts, before)
        if stopping and step < len(plan):
            raise Stopped

    # 5. The model, then the result.
    job.save_folder("model", lambda folder: save_model(policy, tokenizer, folder))
    result = {"program": "sft", "steps": step, "seconds": time.monotonic() - started, "processes": processes.count}
    result |= {"demonstrations": len(rows), "held_out_demonstrations": len(held_out)} | before
    job.write_result(result | summary(job, examples + held_out) | path_summary(policy))
    processes.close()


def encode_all(tokenizer: Any, rows: Sequence[Demonstration], settings: SftConfig, policy: Any) -> list[Example]:
    """Return the demonstrations as tokens."""
    positions = max_positions(policy.config)
    return [encode_demonstration(tokenizer, row, settings, settings.prompt_loss_weight, positions) for row in rows]


def summary(job: JobDirectory, examples: Sequence[Example]) -> dict[str, float]:
    """Return the training's figures for result.json: the last losses, and counts of truncated examples."""
    last = job.metrics()[-1]
    return {name: last[name] for name in ("loss", "held_out_loss") if name in last} | {
        "truncated_prompts": sum(example.truncated_prompt for example in examples),
        "truncated_completions": sum(example.truncated_completion for example in examples),
    }


def prepare_policy(
    settings: SftConfig, demonstrations: list[Demonstration], job: JobDirectory
) -> tuple[PreTrainedModel, Any]:
    """Return the model to fine-tune, or a new one with a tokenizer trained on the demonstrations."""
    if settings.model:
        return load_policy(settings.model)
    tokenizer = bpe.learn_tokenizer(texts_of(demonstrations), settings.vocabulary_size)
    return build_policy(settings.architecture, tokenizer), tokenizer


def texts_of(demonstrations: list[Demonstration]) -> Iterable[str]:
    for row in demonstrations:
        yield from (message["content"] for message in [*row.messages, *row.turns])


def split(rows: list[Demonstration], fraction: float) -> tuple[list[Demonstration], list[Demonstration]]:
    """Return held-out and training rows: by their split, else by a hash of the prompt, which equal prompts share."""

    def is_held_out(row: Demonstration) -> bool:
        if row.split:
            return row.split == "held_out"
        digest = hashlib.sha256(json.dumps(row.messages, sort_keys=True).encode()).digest()
        return int.from_bytes(digest[:4], "big") < fraction * 2**32

    held_out = [row for row in rows if is_held_out(row)]
    training = [row for row in rows if not is_held_out(row)]
    if not training:
        raise BadInput("no training demonstration is left: lower held_out_fraction or add demonstrations")
    return held_out, training


def plan_steps(lengths: Sequence[int], settings: SftConfig) -> list[list[int]]:
    """Return the indices of each step's examples: shuffled in every pass, in steps of at most batch_tokens tokens.

    A longer example is a step of its own.
    """
    plan: list[list[int]] = []
    for epoch in range(settings.epochs):
        plan.append([])
        used = 0
        for index in shuffled(len(lengths), settings.seed, epoch):
            if plan[-1] and used + lengths[index] > settings.batch_tokens:
                plan.append([])
                used = 0
            plan[-1].append(index)
            used += lengths[index]
    return plan


if __name__ == "__main__":
    run_program(main, SftConfig)
