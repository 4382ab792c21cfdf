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
                   turns has "turns" instead of "text": messages, from the policy's first turn to its last
    metrics.jsonl  one line per batch: number of samples so far
    result.json    means over the samples, and with root_model the KL from that model; written last
    state/         state to resume from

Steps:

1. Load the models and the prompts; plan batches of prompts of similar lengths.
2. Load the samples of an earlier run.
3. Sample and score batch by batch.
4. Write the samples, then the result.

SIGTERM stops the program between two batches with its state saved; the same command resumes. The texts depend on the
seed, not on batch_completions or the number of processes.
"""

import itertools
import json
import math
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from training.learner.models.generic_forward import path_summary
from training.learner.models.loading import computing_in, freeze, load_policy
from training.learner.models.oom_retry import MicroBatches
from training.learner.models.reward_model import load_reward_model
from training.learner.policy.dialogues import Dialogue, EpisodeContext, environment_factory, episodes_of, play
from training.learner.policy.divergence import log_probs_of, root_divergence
from training.learner.reward_terms import Answer
from training.learner.rewards.reward_function import check_scoring_positions, same_tokens, sample_scorer
from training.learner.runtime.config import SampleConfig
from training.learner.runtime.jobdir import BadInput, JobDirectory, Stopped, StopSignal
from training.learner.runtime.optimization import check_finite
from training.learner.runtime.processes import Processes
from training.learner.runtime.program import run_program
from training.learner.sampling.sampler import Completion, SamplingParams, check_positions, sample, sampling_params_for
from training.learner.text.messages import Prompt, read_prompts, share

SAVE_EVERY = 16  # batches between saved states


def main(job_dir: Path) -> None:
    processes, stop = Processes(), StopSignal()
    job = JobDirectory(job_dir, processes.is_first)
    processes.wait()
    if job.result() is not None:
        return
    settings = SampleConfig.from_json(job.config())
    started = time.monotonic()

    # 1. Models and prompts; a step is a batch of completions to prompts of similar lengths.
    policy, tokenizer = load_policy(settings.model)
    freeze(policy)
    prompts = read_prompts(tokenizer, job.rows("prompts.jsonl"), settings)
    check_positions(policy, [prompt.tokens for prompt in prompts], settings.max_completion_tokens)
    scoring = load_reward_model(settings.reward_model) if settings.reward_model else None
    if scoring is not None:
        check_scoring_positions(scoring, [prompt.row for prompt in prompts], tokenizer, settings)
    scorer = sample_scorer(settings, tokenizer, scoring)
    root = load_root(settings, tokenizer, prompts)
    params = sampling_params_for(
        policy, tokenizer, settings.max_completion_tokens, settings.temperature, settings.top_p, settings.seed
    )
    models = (policy,) if root is None else (policy, root)
    tools = EpisodeContext(settings, tokenizer, environment_factory(settings), models, scoring)
    write = turn_writer(policy, params, settings)
    plan = plan_batches(prompts, settings.completions_per_prompt, settings.batch_completions)

    # 2. Samples of an earlier run.
    step, done = load_samples(job.state, plan) if job.state is not None else (0, [])
    job.truncate_metrics(step)

    # 3. Batch by batch.
    while step < len(plan):
        step += 1
        mine = share(plan[step - 1], processes.rank, processes.count)
        dialogues = [Dialogue(tools, prompts[number // settings.completions_per_prompt], number) for number in mine]
        play(dialogues, mine, write)
        scores = scorer([answer_of(dialogue) for dialogue in dialogues]) if scorer else [None] * len(dialogues)
        check_samples_finite(dialogues, scores, step)
        rows = [as_row(n, d, s) for n, d, s in zip(mine, dialogues, scores, strict=True)]
        if root is not None:
            add_log_ratios(rows, root, dialogues, settings)
        done += processes.gather(rows)
        job.append_metrics(step, len(plan), samples=float(len(done)))
        stopping = processes.any(stop.received)
        if stopping or step % SAVE_EVERY == 0:
            job.save_folder("state", partial(save_samples, step, done))
        if stopping and step < len(plan):
            raise Stopped

    # 4. Samples in the order of the prompts, then the result.
    done.sort(key=lambda row: int(row["number"]))
    job.write_rows("samples.jsonl", (as_sample(row, prompts, settings.completions_per_prompt) for row in done))
    job.write_result(
        summary(done, prompts, settings, time.monotonic() - started)
        | {"processes": processes.count}
        | path_summary(policy)
    )
    processes.close()


def turn_writer(
    policy: Any, params: SamplingParams, settings: SampleConfig
) -> Callable[[list[list[int]], list[int]], list[Completion]]:
    """Return a function that writes the next turn after each of some token sequences, by numbered random choices."""
    rows_at_once = MicroBatches(settings.batch_completions, unit="completions")

    def write(texts: list[list[int]], numbers: list[int]) -> list[Completion]:
        with computing_in(settings.dtype):
            return rows_at_once.attempt([1] * len(texts), partial(sample, policy, texts, numbers, params))

    return write


def plan_batches(prompts: Sequence[Prompt], per_prompt: int, batch: int) -> list[list[int]]:
    """Return the numbers of the completions in batches; completion n answers prompt n // per_prompt."""
    numbers = sorted(range(len(prompts) * per_prompt), key=lambda n: (len(prompts[n // per_prompt].tokens), n))
    return [numbers[start : start + batch] for start in range(0, len(numbers), batch)]


def load_root(settings: SampleConfig, tokenizer: Any, prompts: Sequence[Prompt]) -> Any:
    """Return the model that kl_from_root is measured from, or None. Raises BadInput if it reads other tokens."""
    if not settings.root_model:
        return None
    root, root_tokenizer = load_policy(settings.root_model)
    if not same_tokens(tokenizer, root_tokenizer):
        raise BadInput("model and root_model must have the same tokenizer")
    check_positions(root, [prompt.tokens for prompt in prompts], settings.max_completion_tokens, "the root model")
    return freeze(root)


def add_log_ratios(
    rows: Sequence[dict[str, Any]], root: Any, dialogues: Sequence[Dialogue], settings: SampleConfig
) -> None:
    """Set `log_ratio` of each row to log π(y|x) − log π_root(y|x), nats, over the policy's tokens of all turns."""
    episodes, micro_batches = episodes_of(dialogues, settings), MicroBatches(settings.micro_batch_tokens)
    under_root = log_probs_of(root, episodes, settings.temperature, settings.dtype, micro_batches)
    for row, dialogue, log_probs in zip(rows, dialogues, under_root, strict=True):
        row["log_ratio"] = math.fsum(dialogue.log_probs) - float(log_probs.double().sum())


def check_samples_finite(dialogues: Sequence[Dialogue], scores: Iterable[Any], step: int) -> None:
    """Raise TrainingFailed if a damaged policy or reward model gave NaN or infinity."""
    for dialogue, score in zip(dialogues, scores, strict=True):
        check_finite("the policy's log-probability", sum(dialogue.log_probs), step)
        check_finite("the reward model's score", 0.0 if score is None else float(score), step)


def answer_of(dialogue: Dialogue) -> Answer:
    """Return the last turn of a dialogue that is over."""
    assert dialogue.answer is not None
    return dialogue.answer


def as_row(number: int, dialogue: Dialogue, score: Any) -> dict[str, Any]:
    answer = answer_of(dialogue)
    written = {"turns": list(answer.turns)} if answer.turns else {"text": answer.text}
    return {
        "number": number,
        **written,
        "ended": answer.finished,
        "tokens": sum(turn.end - turn.start for turn in dialogue.turns),
        "score": None if score is None else float(score),
    }


def as_sample(row: dict[str, Any], prompts: Sequence[Prompt], per_prompt: int) -> dict[str, Any]:
    """Return a row of samples.jsonl."""
    number = row["number"]
    place = {"prompt_id": prompts[number // per_prompt].row.get("prompt_id"), "index": number % per_prompt}
    return place | {key: value for key, value in row.items() if key not in ("number", "log_ratio")}


def save_samples(step: int, rows: list[dict[str, Any]], folder: Path) -> None:
    (folder / "samples.json").write_text(json.dumps([step, rows]), "utf-8")


def load_samples(folder: Path, plan: Sequence[Sequence[int]]) -> tuple[int, list[dict[str, Any]]]:
    """Return the number of finished batches and their rows. Raises BadInput if they are not the plan's first ones."""
    step, rows = json.loads((folder / "samples.json").read_text("utf-8"))
    if sorted(row["number"] for row in rows) != sorted(itertools.chain(*plan[:step])):
        raise BadInput(f"{folder} was saved with other settings or prompts: delete it to start the job again")
    return step, rows


def summary(
    rows: list[dict[str, Any]], prompts: Sequence[Prompt], settings: SampleConfig, seconds: float
) -> dict[str, Any]:
    scores = [row["score"] for row in rows if row["score"] is not None]
    ratios = [row["log_ratio"] for row in rows if "log_ratio" in row]
    answered = [row["number"] // settings.completions_per_prompt for row in rows]
    return (root_divergence(answered, ratios) if ratios else {}) | {
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
