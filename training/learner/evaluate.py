"""evaluate: sample completions of prompts by a policy, and report figures of them with intervals. It trains nothing.

    python -m training.learner.evaluate JOB_DIR
    accelerate launch --num_processes 2 -m training.learner.evaluate JOB_DIR

Files in:

    config.json    settings that differ from the defaults below; `model` is required
    prompts.jsonl  {"prompt_id": 7, "messages": [{"role": "user", "content": "..."}], "references": ["..."]}, one prompt
                   per line; references are optional

Files out:

    result.json        {"metrics": {"similarity": {"value": 0.4, "low": 0.36, "high": 0.44, "count": 200}, ...}, ...};
                       written last. count: prompts that the figure is of; low, high: its 95 % interval, or null
    completions.jsonl  {"prompt_id": 7, "index": 0, "text": "...", "tokens": 12, "finished": 1.0, "similarity": 0.4,
                       ...}, in the order of the prompts. A dialogue has "turns" instead of "text"
    metrics.jsonl      one line per batch: number of completions so far
    state/             state to resume from

| figure | of a completion | interval |
|---|---|---|
| the text metrics | by reward_terms/text_metrics.py, 0 to 1; only of prompts with references | by prompt |
| reward_model | normalised score; with `reward_model` | by prompt |
| reward_model_deviation | standard deviation of the score over the ensemble's heads; if it has some | by prompt |
| kl_from_root | nats, with `root_model`: sum of the KL of every next token (policy/divergence.py) | by prompt |
| tokens | number of the policy's tokens, EOS included | by prompt |
| finished, cut_off | whether the last turn has its EOS token, or reached the maximum length | Wilson |
| truncated | (of dialogues) whether no further turn fitted into the models' positions; not finished | Wilson |
| empty | whether the last turn has no text but white space | Wilson |
| repeated | whether a phrase of 4 tokens or more stands three times in a row | Wilson |
| distinct_1, distinct_2 | (of all together) distinct n-grams of tokens / tokens, Li et al. 2016 | jackknife by prompt |

By prompt: mean of the prompts' means ± 1.96 standard errors, from 30 prompts on. policy/figures.py has the details.

Steps:

1. Load the models, the prompts and the text metrics.
2. Sample and measure batches of prompts of similar lengths, after those of an earlier run.
3. Write the completions, then the result.

SIGTERM stops the program between two batches with its state saved; the same command resumes. The texts depend on the
seed, not on batch_completions or the number of processes: two policies that are evaluated with one seed on the same
prompts are sampled with the same random numbers.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from training.learner.models.generic_forward import path_summary
from training.learner.models.reward_model import Scores
from training.learner.policy.completion_figures import figures_of_dialogue, tokens_of_turns
from training.learner.policy.dialogues import Dialogue
from training.learner.policy.figures import Figure, distinct_figure, mean_figure, share_figure
from training.learner.policy.samples import (
    Row,
    SampleContext,
    answer_of,
    divergences,
    load_sample_context,
    place_of,
    write_completions,
    written,
)
from training.learner.reward_terms import METRICS, Answer, Scorer
from training.learner.rewards.reward_function import deviation_scorer, metric_scorer
from training.learner.runtime.config.evaluate import EvaluateConfig
from training.learner.runtime.optimization import check_finite
from training.learner.runtime.options import options_of
from training.learner.runtime.program import run_program
from training.learner.runtime.start import start_program

SHARES = (*METRICS, "finished", "empty", "cut_off", "truncated", "repeated")  # figures from 0 to 1
ScoreWithDeviation = Callable[[Sequence[Answer]], Scores]


def main(job_dir: Path) -> None:
    start = start_program(job_dir, EvaluateConfig)
    if start is None:
        return
    settings, job, processes, stop, started = start

    # 1. Models, prompts and text metrics.
    context = load_sample_context(settings, processes, job)
    metrics = {entry["name"]: metric_scorer(entry["name"], options_of(entry)) for entry in settings.metrics}
    score = deviation_scorer(settings, context.scoring) if context.scoring is not None else None

    # 2. Batch by batch.
    rows = write_completions(context, job, stop, partial(measure, context, metrics, score))

    # 3. Completions in the order of the prompts, then the result.
    job.write_rows("completions.jsonl", (as_completion(context, row) for row in rows))
    result = {
        "program": "evaluate",
        "metrics": figures_of(context, rows),
        "prompts": len(context.prompts),
        "completions": len(rows),
        "truncated_prompts": sum(prompt.truncated for prompt in context.prompts),
        "seconds": time.monotonic() - started,
        "processes": processes.count,
    }
    job.write_result(result | path_summary(context.policy))
    processes.close()


def measure(
    context: SampleContext,
    metrics: Mapping[str, Scorer],
    score: ScoreWithDeviation | None,
    dialogues: Sequence[Dialogue],
    step: int,
) -> list[Row]:
    """Return the rows of a batch of completions. Raises TrainingFailed if a damaged model gave NaN or infinity."""
    answers = [answer_of(dialogue) for dialogue in dialogues]
    scores = score(answers) if score is not None else None
    distances = divergences(context, dialogues)
    rows = []
    for place, dialogue in enumerate(dialogues):
        figures: dict[str, float] = {}
        if scores is not None:
            figures["reward_model"] = float(scores.mean[place])
            check_finite("the reward model's score", figures["reward_model"], step)
            if context.scoring is not None and context.scoring[0].ensemble is not None:
                figures["reward_model_deviation"] = float(scores.deviation[place])
        for name, distance in distances[place].items():
            check_finite("the root model's log-probability", distance, step)
            figures[name] = distance
        figures |= figures_of_dialogue(context.tokenizer, metrics, dialogue)
        turns = tokens_of_turns(context.tokenizer, dialogue)
        rows.append({**written(dialogue), "figures": figures, "turn_tokens": turns})
    return rows


def as_completion(context: SampleContext, row: Row) -> Row:
    """Return a row of completions.jsonl."""
    texts = {name: row[name] for name in ("text", "turns") if name in row}
    return place_of(context, row["number"]) | texts | row["figures"]


def figures_of(context: SampleContext, rows: Sequence[Row]) -> dict[str, Figure]:
    """Return all figures with their intervals, by name. rows: in the order of the prompts."""
    per_prompt = context.settings.completions_per_prompt
    figures: dict[str, Figure] = {}
    for name in dict.fromkeys(name for row in rows for name in row["figures"]):
        measured = [row for row in rows if name in row["figures"]]
        prompts = [row["number"] // per_prompt for row in measured]
        values = [row["figures"][name] for row in measured]
        figures[name] = (share_figure if name in SHARES else mean_figure)(prompts, values)
    texts = [
        [tokens for row in rows[start : start + per_prompt] for tokens in row["turn_tokens"]]
        for start in range(0, len(rows), per_prompt)
    ]
    for n in (1, 2):
        if (distinct := distinct_figure(texts, n)) is not None:
            figures[f"distinct_{n}"] = distinct
    return figures


if __name__ == "__main__":
    run_program(main, EvaluateConfig)
