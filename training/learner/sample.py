"""sample: write completions of prompts by a policy, scored by a reward model or other reward terms.

    python -m training.learner.sample JOB_DIR
    accelerate launch --num_processes 2 -m training.learner.sample JOB_DIR

Files in:

    config.json    settings that differ from the defaults below; `model` is required
    prompts.jsonl  {"prompt_id": 7, "messages": [{"role": "user", "content": "..."}]}, one prompt per line

`"references": ["..."]` are right answers, for reward terms that compare with them. Without them such a term gives no
score (null).

Files out:

    samples.jsonl  {"prompt_id": 7, "index": 0, "text": "...", "ended": true, "tokens": 12, "score": 0.5},
                   in the order of the prompts; "ended": whether the completion has its EOS token. A dialogue of several
                   turns has "turns" instead of "text": messages, from the policy's first turn to its last; and
                   "truncated": whether it would have gone on, but no further turn fitted into the models' positions
    metrics.jsonl  one line per batch: number of samples so far
    result.json    means over the samples, and with root_model the KL from that model; written last. ended_fraction
                   is the share of completions with an EOS token that are not truncated dialogues
    state/         state to resume from

Steps:

1. Load the models and the prompts.
2. Sample and score batches of prompts of similar lengths, after those of an earlier run.
3. Write the samples, then the result.

SIGTERM stops the program between two batches with its state saved; the same command resumes. The texts depend on the
seed, not on batch_completions or the number of processes.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from training.learner.models.generic_forward import path_summary
from training.learner.policy.dialogues import Dialogue, is_single
from training.learner.policy.divergence import mean_divergence
from training.learner.policy.samples import (
    SampleContext,
    answer_of,
    divergences,
    load_sample_context,
    place_of,
    token_count,
    truncation,
    write_completions,
    written,
)
from training.learner.reward_terms import Answer
from training.learner.rewards.reward_function import sample_scorer
from training.learner.runtime.config import SampleConfig
from training.learner.runtime.optimization import check_finite
from training.learner.runtime.program import run_program
from training.learner.runtime.start import start_program

Score = Callable[[Sequence[Answer]], Sequence[float | None]]


def main(job_dir: Path) -> None:
    start = start_program(job_dir, SampleConfig)
    if start is None:
        return
    settings, job, processes, stop, started = start

    # 1. Models and prompts.
    context = load_sample_context(settings, processes, job)
    score = sample_scorer(settings, context.tokenizer, context.scoring) or no_scores

    # 2. Batch by batch.
    rows = write_completions(context, job, stop, partial(describe, context, score))

    # 3. Samples in the order of the prompts, then the result.
    job.write_rows("samples.jsonl", (as_sample(context, row) for row in rows))
    job.write_result(
        summary(context, rows, time.monotonic() - started)
        | {"processes": processes.count}
        | path_summary(context.policy)
    )
    processes.close()


def no_scores(answers: Sequence[Answer]) -> list[float | None]:
    return [None] * len(answers)


def describe(context: SampleContext, score: Score, dialogues: Sequence[Dialogue], step: int) -> list[dict[str, Any]]:
    """Return the rows of a batch of completions. Raises TrainingFailed if a damaged model gave NaN or infinity."""
    scores = score([answer_of(dialogue) for dialogue in dialogues])
    rows = []
    for dialogue, number, distance in zip(dialogues, scores, divergences(context, dialogues), strict=True):
        check_finite("the reward model's score", 0.0 if number is None else float(number), step)
        row = {
            **distance,
            **written(dialogue),
            "ended": answer_of(dialogue).finished,
            "tokens": token_count(dialogue),
            "score": None if number is None else float(number),
            **truncation(dialogue),
        }
        rows.append(row)
    return rows


def is_truncated(row: dict[str, Any]) -> bool:
    return bool(row.get("truncated", False))


def as_sample(context: SampleContext, row: dict[str, Any]) -> dict[str, Any]:
    """Return a row of samples.jsonl."""
    kept = {key: value for key, value in row.items() if key not in ("number", *context.others)}
    return place_of(context, row["number"]) | kept


def summary(context: SampleContext, rows: list[dict[str, Any]], seconds: float) -> dict[str, Any]:
    scores = [row["score"] for row in rows if row["score"] is not None]
    answered = [row["number"] // context.settings.completions_per_prompt for row in rows]
    figures: dict[str, Any] = {}
    for name in context.others:
        figures |= mean_divergence(name, answered, [row[name] for row in rows])
    return figures | {
        "program": "sample",
        "samples": len(rows),
        "seconds": seconds,
        "score_mean": sum(scores) / len(scores) if scores else None,
        "ended_fraction": sum(row["ended"] and not is_truncated(row) for row in rows) / len(rows),
        "tokens_mean": sum(row["tokens"] for row in rows) / len(rows),
        "cut_off_completions": sum(not row["ended"] for row in rows),
        **({} if is_single(context.settings) else {"truncated_dialogues": sum(map(is_truncated, rows))}),
        "truncated_prompts": sum(prompt.truncated for prompt in context.prompts),
    }


if __name__ == "__main__":
    run_program(main, SampleConfig)
