"""guards: measure what a policy must not lose in training, on its base and on itself. It trains nothing.

    python -m training.learner.guards JOB_DIR
    accelerate launch --num_processes 2 -m training.learner.guards JOB_DIR

Files in:

    config.json        settings that differ from the defaults below; `model` and `base_model` are required
    prompts.jsonl      as for evaluate; may be empty
    guard_texts.jsonl  {"text": "..."}: texts that the policy should not find less likely; may be empty

Files out:

    result.json    {"guards": {"bleu": {"before": 0.2, "after": 0.1, "difference": -0.1, "error": 0.02, "count": 200}},
                   "kl_from_base": 0.8, "kl_from_base_low": 0.7, ...}; written last
    measured_samples.jsonl  the policy's completions that the KL is computed from: {"purpose": "guards", "model":
                   "policy", "prompt_id": 7, "index": 0, "log_prob": -31.2, "kl_from_base": 0.4, "kl_from_root": 1.3}
    metrics.jsonl  one line per batch: number of completions of the policy so far
    state/         state to resume from

| guard | of |
|---|---|
| nll | a guard text: −log-likelihood in nats per token |
| the text metrics | a completion of a prompt with references, 0 to 1 |
| empty, repeated, cut_off, tokens | a completion, see policy/completion_figures.py |

`before` is the base's mean, `after` the policy's. Both answer the same prompts with the same random numbers, so they
are compared prompt by prompt: `difference` is the mean over prompts (or texts), after minus before, and `error` is its
standard error, of the differences between prompts, or null with fewer than 30. kl_from_base and kl_from_root are
estimated on the policy's completions (policy/divergence.py); an error and a 95 % interval follow from 30 prompts on.

Steps:

1. Load the models.
2. Read the guard texts by the base and by the policy.
3. Answer batches of prompts by both and measure the completions, after those of an earlier run.
4. Compare, and write the result.

SIGTERM stops the program between two batches with its state saved; the same command resumes.
"""

import dataclasses
import math
import time
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from statistics import fmean
from typing import Any

from training.learner.models.context_length import max_positions
from training.learner.models.generic_forward import path_summary
from training.learner.models.loading import load_frozen_policy
from training.learner.models.oom_retry import MicroBatches
from training.learner.models.packing import Episodes
from training.learner.policy.completion_figures import figures_of_dialogue
from training.learner.policy.dialogues import Dialogue, play
from training.learner.policy.divergence import log_probs_of, mean_divergence
from training.learner.policy.samples import (
    Row,
    SampleContext,
    divergences,
    episode_context,
    load_other,
    load_sample_context,
    place_of,
    prompt_of,
    turn_writer,
    write_completions,
)
from training.learner.reward_terms import Scorer
from training.learner.rewards.reward_function import has_references, metric_scorer
from training.learner.runtime.config.guards import GuardsConfig
from training.learner.runtime.intervals import standard_error
from training.learner.runtime.jobdir import BadInput, JobDirectory, StopSignal
from training.learner.runtime.optimization import check_finite
from training.learner.runtime.options import options_of
from training.learner.runtime.processes import Processes
from training.learner.runtime.program import run_program
from training.learner.runtime.start import start_program
from training.learner.text.control_tokens import encode_text
from training.learner.text.messages import share

NOT_GUARDS = ("finished", "truncated")  # figures of a completion that others imply


def main(job_dir: Path) -> None:
    start = start_program(job_dir, GuardsConfig)
    if start is None:
        return
    settings, job, processes, stop, started = start
    if not settings.base_model:
        raise BadInput("set base_model, the checkpoint that the policy was trained from")
    result: dict[str, Any] = {"program": "guards", "guards": {}, "processes": processes.count}

    # 1. Models, without prompts only if there are texts.
    texts = texts_of(job)
    if any(job.rows("prompts.jsonl")):
        context = load_compared(settings, processes, job)
    elif texts:
        policy, tokenizer = load_frozen_policy(settings.model, settings.dtype)
        base, _ = load_frozen_policy(settings.base_model, settings.dtype)
        context = SampleContext(settings, processes, policy, tokenizer, [], None, None, base)
    else:
        job.write_result(result | {"seconds": time.monotonic() - started})
        return

    # 2. Guard texts.
    if texts:
        result |= text_result(context, settings, texts)

    # 3. and 4. Completions by both, and their comparison.
    if context.prompts:
        result["guards"] |= (compared := completion_result(context, settings, job, stop)).pop("guards")
        result |= compared
    job.write_result(result | {"seconds": time.monotonic() - started} | path_summary(context.policy))
    processes.close()


def texts_of(job: JobDirectory) -> list[str]:
    """Return the guard texts. Raises BadInput for a row without one."""
    texts = []
    for number, row in enumerate(job.rows("guard_texts.jsonl"), 1):
        if not isinstance(row.get("text"), str):
            raise BadInput(f"guard_texts.jsonl, row {number}: text must be a string")
        texts.append(row["text"])
    return texts


def load_compared(settings: GuardsConfig, processes: Processes, job: JobDirectory) -> SampleContext:
    """Load the policy, its base and its root, which are one model in the first round. Raises BadInput."""
    is_root = settings.root_model == settings.base_model
    context = load_sample_context(dataclasses.replace(settings, root_model="") if is_root else settings, processes, job)
    base = load_other(settings, "base", context.policy, context.tokenizer, context.prompts)
    return dataclasses.replace(context, settings=settings, base=base, root=base if is_root else context.root)


def text_result(context: SampleContext, settings: GuardsConfig, texts: Sequence[str]) -> dict[str, Any]:
    """Return the guard `nll` on the texts, without those of fewer than two tokens, and counts of texts."""
    whole = [text_tokens(context.tokenizer, text) for text in texts]
    rooms = [max_positions(model.config) for model in (context.policy, context.base)]
    longest = min([settings.max_text_tokens, *(room for room in rooms if room is not None)])
    read = [tokens[:longest] for tokens in whole if len(tokens) > 1]
    counts = {
        "guard_texts": len(read),
        "truncated_texts": sum(len(tokens) > longest for tokens in whole),
        "short_texts": len(texts) - len(read),
    }
    if not read:
        return counts
    before, after = (
        negative_log_likelihoods(context, settings, model, read) for model in (context.base, context.policy)
    )
    return {"guards": {"nll": paired(range(len(read)), before, after)}} | counts


def text_tokens(tokenizer: Any, text: str) -> list[int]:
    """Return the tokens of a text, after the tokenizer's BOS token if there is one: its first token is then scored."""
    bos = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    return [*bos, *encode_text(tokenizer, text)]


def negative_log_likelihoods(
    context: SampleContext, settings: GuardsConfig, model: Any, texts: Sequence[Sequence[int]]
) -> list[float]:
    """Return −log p of each text under the model in nats per token, without the first token."""
    processes = context.processes
    mine = share(range(len(texts)), processes.rank, processes.count)
    episodes = Episodes([texts[i][:1] for i in mine], [texts[i][1:] for i in mine])
    log_probs = log_probs_of(model, episodes, 1.0, settings.dtype, MicroBatches(settings.micro_batch_tokens))
    values = processes.gather([-float(row.double().mean()) for row in log_probs])
    for value in values:
        check_finite("the log-likelihood of a guard text", value, 0)
    return values


def completion_result(
    context: SampleContext, settings: GuardsConfig, job: JobDirectory, stop: StopSignal
) -> dict[str, Any]:
    """Let both models answer the prompts; return their guards, and the policy's divergence from the others."""
    has_some = any(has_references(prompt.row) for prompt in context.prompts)  # else the metrics are not worth a second
    metrics = {entry["name"]: metric_scorer(entry["name"], options_of(entry)) for entry in settings.metrics if has_some}
    of_base = dataclasses.replace(context, policy=context.base)
    rows = write_completions(context, job, stop, partial(compare, context, of_base, metrics))
    guards = {}
    for name in dict.fromkeys(name for row in rows for name in row["after"]):
        measured = [row for row in rows if name in row["before"] and name in row["after"]]
        if name not in NOT_GUARDS and measured:
            columns = ([row[side][name] for row in measured] for side in ("before", "after"))
            guards[name] = paired(prompts_of(settings, measured), *columns)
    result: dict[str, Any] = {"guards": guards, "completions": len(rows), "prompts": len(context.prompts)}
    for name in context.others:
        result |= mean_divergence(name, prompts_of(settings, rows), [row[name] for row in rows])
    job.write_measured_samples(measured_sample(context, row) for row in rows)
    return result


def measured_sample(context: SampleContext, row: Row) -> Row:
    """Return the row of measured_samples.jsonl of a completion of the policy."""
    figures = {name: row[name] for name in ("log_prob", *context.others) if name in row}
    return {"purpose": "guards", "model": "policy", **place_of(context, row["number"]), **figures}


def prompts_of(settings: GuardsConfig, rows: Sequence[Row]) -> list[int]:
    """Return the place of the prompt of each row."""
    return [row["number"] // settings.completions_per_prompt for row in rows]


def compare(
    context: SampleContext,
    of_base: SampleContext,
    metrics: Mapping[str, Scorer],
    dialogues: Sequence[Dialogue],
    step: int,
) -> list[Row]:
    """Return the rows of a batch of the policy's completions, with those of its base for the same prompts.

    Raises TrainingFailed if a damaged model gave NaN or infinity.
    """
    numbers = [dialogue.number for dialogue in dialogues]
    tools = episode_context(of_base)
    answered = [Dialogue(tools, prompt_of(context, number), number) for number in numbers]
    play(answered, numbers, turn_writer(of_base))
    rows = []
    for after, before, distances in zip(dialogues, answered, divergences(context, dialogues), strict=True):
        for name, distance in distances.items():
            check_finite(f"the {name.removeprefix('kl_from_')} model's log-probability", distance, step)
        check_finite("the base model's log-probability", sum(before.log_probs), step)
        figures = {
            side: figures_of_dialogue(context.tokenizer, metrics, dialogue)
            for side, dialogue in (("before", before), ("after", after))
        }
        rows.append(figures | distances | {"log_prob": math.fsum(after.log_probs)})
    return rows


def paired(clusters: Sequence[int], before: Sequence[float], after: Sequence[float]) -> dict[str, float | int | None]:
    """Return the comparison of two values of N completions: means by cluster, their difference and its error.

    clusters: [N], the prompt of each completion; those of one prompt follow each other. The standard error is that of
    the mean of the clusters' differences (Cochran 1977, §9A), None with fewer than 30.
    """
    rows = groupby(zip(clusters, before, after, strict=True), lambda row: row[0])
    means = [tuple(map(fmean, list(zip(*of_cluster, strict=True))[1:])) for _, of_cluster in rows]
    differences = [last - first for first, last in means]
    return {
        "before": fmean(first for first, _ in means),
        "after": fmean(last for _, last in means),
        "difference": fmean(differences),
        "error": standard_error(differences),
        "count": len(means),
    }


if __name__ == "__main__":
    run_program(main, GuardsConfig)
