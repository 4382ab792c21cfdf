"""sample: completions of given prompts from a policy, each scored by a reward model or other reward terms.

    python -m training.learner.sample JOB_DIR

Reads config.json (`SampleConfig`) and prompts.jsonl, rows of `{"prompt_id": 7, "messages": [...]}`, with `"references":
["..."]` for terms that compare with them: without any a completion has no score (null). Writes
samples.jsonl, in the order of the prompts: `{"prompt_id", "index", "text", "ended", "tokens", "score"}`. The same seed
gives the same texts, whatever batch_completions is and however many processes share the work.
"""

import itertools
import json
import time
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from training.learner.models.generic_forward import path_summary
from training.learner.models.loading import computing_in, freeze, load_policy
from training.learner.models.oom_retry import MicroBatches
from training.learner.models.reward_model import load_reward_model
from training.learner.reward_terms import Answer
from training.learner.rewards.reward_function import check_scoring_positions, sample_scorer
from training.learner.runtime.config import SampleConfig
from training.learner.runtime.jobdir import BadInput, JobDirectory, Stopped, StopSignal
from training.learner.runtime.optimization import check_finite
from training.learner.runtime.processes import Processes
from training.learner.runtime.program import run_program
from training.learner.sampling.sampler import Completion, check_positions, sample, sampling_params_for
from training.learner.text.messages import Prompt, decode_completion, read_prompts, share

SAVE_EVERY = 16  # batches between saved states


def main(job_dir: Path) -> None:
    processes, stop = Processes(), StopSignal()
    job = JobDirectory(job_dir, processes.is_first)
    processes.wait()
    if job.result() is not None:
        return
    settings = SampleConfig.from_json(job.config())
    started = time.monotonic()

    # 1. The models and the prompts; a batch of completions is a step, those of like prompt lengths together.
    policy, tokenizer = load_policy(settings.model)
    freeze(policy)
    prompts = read_prompts(tokenizer, job.rows("prompts.jsonl"), settings)
    check_positions(policy, [prompt.tokens for prompt in prompts], settings.max_completion_tokens)
    scoring = load_reward_model(settings.reward_model) if settings.reward_model else None
    if scoring is not None:
        check_scoring_positions(scoring, [prompt.row for prompt in prompts], tokenizer, settings)
    scorer = sample_scorer(settings, tokenizer, scoring)
    params = sampling_params_for(
        policy, tokenizer, settings.max_completion_tokens, settings.temperature, settings.top_p, settings.seed
    )
    rows_at_once = MicroBatches(settings.batch_completions, unit="completions")
    plan = plan_batches(prompts, settings.completions_per_prompt, settings.batch_completions)

    # 2. What an earlier run had finished.
    step, done = load_samples(job.state, plan) if job.state is not None else (0, [])
    job.truncate_metrics(step)

    # 3. Batch by batch.
    while step < len(plan):
        step += 1
        mine = share(plan[step - 1], processes.rank, processes.count)
        chosen = [prompts[number // settings.completions_per_prompt] for number in mine]
        with computing_in(settings.dtype):
            written = rows_at_once.attempt([1] * len(mine), partial(
                sample, policy, [prompt.tokens for prompt in chosen], mine, params))  # fmt: skip
        answers = [
            Answer(prompt.row, prompt.tokens, w.tokens, decode_completion(tokenizer, w.tokens), w.finished)
            for prompt, w in zip(chosen, written, strict=True)
        ]
        scores = scorer(answers) if scorer else [None] * len(answers)
        check_numbers(written, scores, step)
        rows = [as_row(n, a, s) for n, a, s in zip(mine, answers, scores, strict=True)]
        done += processes.gather(rows)
        job.append_metrics(step, len(plan), samples=float(len(done)))
        stopping = processes.any(stop.received)
        if stopping or step % SAVE_EVERY == 0:
            job.save_folder("state", partial(save_samples, step, done))
        if stopping and step < len(plan):
            raise Stopped

    # 4. In the order of the prompts; then the result.
    done.sort(key=lambda row: int(row["number"]))
    job.write_rows("samples.jsonl", (as_sample(row, prompts, settings.completions_per_prompt) for row in done))
    job.write_result(
        summary(done, prompts, time.monotonic() - started) | {"processes": processes.count} | path_summary(policy)
    )
    processes.close()


def plan_batches(prompts: Sequence[Prompt], each: int, batch: int) -> list[list[int]]:
    """Completions' numbers in batches: the n-th completion answers prompt n // each."""
    numbers = sorted(range(len(prompts) * each), key=lambda n: (len(prompts[n // each].tokens), n))
    return [numbers[start : start + batch] for start in range(0, len(numbers), batch)]


def check_numbers(written: Sequence[Completion], scores: Iterable[Any], step: int) -> None:
    """Raises TrainingFailed where a damaged policy or reward model gave what is no number."""
    for completion, score in zip(written, scores, strict=True):
        check_finite("the policy's log-probability", sum(completion.log_probs), step)
        check_finite("the reward model's score", 0.0 if score is None else float(score), step)


def as_row(number: int, answer: Answer, score: Any) -> dict[str, Any]:
    own = None if score is None else float(score)
    return {
        "number": number,
        "text": answer.text,
        "ended": answer.finished,
        "tokens": len(answer.completion),
        "score": own,
    }


def as_sample(row: dict[str, Any], prompts: Sequence[Prompt], each: int) -> dict[str, Any]:
    """A line of samples.jsonl."""
    number = row["number"]
    place = {"prompt_id": prompts[number // each].row.get("prompt_id"), "index": number % each}
    return place | {key: value for key, value in row.items() if key != "number"}


def save_samples(step: int, rows: list[dict[str, Any]], folder: Path) -> None:
    (folder / "samples.json").write_text(json.dumps([step, rows]), "utf-8")


def load_samples(folder: Path, plan: Sequence[Sequence[int]]) -> tuple[int, list[dict[str, Any]]]:
    """The batches finished, and their completions. Raises BadInput unless they are the plan's first ones."""
    step, rows = json.loads((folder / "samples.json").read_text("utf-8"))
    if sorted(row["number"] for row in rows) != sorted(itertools.chain(*plan[:step])):
        raise BadInput(f"{folder} is of other settings or prompts; without it the job would start anew")
    return step, rows


def summary(rows: list[dict[str, Any]], prompts: Sequence[Prompt], seconds: float) -> dict[str, Any]:
    scores = [row["score"] for row in rows if row["score"] is not None]
    return {
        "program": "sample",
        "samples": len(rows),
        "seconds": seconds,
        "score_mean": sum(scores) / len(scores) if scores else None,
        "ended_fraction": sum(row["ended"] for row in rows) / len(rows),
        "tokens_mean": sum(row["tokens"] for row in rows) / len(rows),
        "cut_off_completions": sum(not row["ended"] for row in rows),
        "truncated_prompts": sum(prompt.truncated for prompt in prompts),
    }


if __name__ == "__main__":
    run_program(main, SampleConfig)
