"""Completions of prompts, batch by batch, as the programs sample and evaluate write them; a stopped run is resumed.

The texts depend on the seed, not on the batches or the number of processes: completion n answers prompt
n // completions_per_prompt and has the random numbers of n.
"""

import itertools
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from training.learner.models.loading import computing_in, freeze, load_policy
from training.learner.models.oom_retry import MicroBatches
from training.learner.models.reward_model import load_reward_model
from training.learner.policy.dialogues import (
    Dialogue,
    EpisodeContext,
    environment_factory,
    episodes_of,
    play,
    turns_to_fit,
)
from training.learner.policy.divergence import log_probs_of
from training.learner.reward_terms import Answer
from training.learner.rewards.reading import Scoring
from training.learner.rewards.reward_function import check_scoring_positions, same_tokens
from training.learner.runtime.config import Sampling
from training.learner.runtime.jobdir import BadInput, JobDirectory, Stopped, StopSignal
from training.learner.runtime.optimization import check_finite
from training.learner.runtime.processes import Processes
from training.learner.sampling.sampler import Completion, SamplingParams, check_positions, sample, sampling_params_for
from training.learner.text.messages import Prompt, read_prompts, share

SAVE_EVERY = 16  # batches between saved states
FIRST_PROMPTS = 4  # whose first completions go to samples_at_steps.jsonl

Row = dict[str, Any]


@dataclass(frozen=True)
class SampleContext:
    """The settings, models and prompts of a run."""

    settings: Sampling
    processes: Processes
    policy: Any
    tokenizer: Any
    prompts: Sequence[Prompt]
    scoring: Scoring | None  # the reward model and its tokenizer
    root: Any  # the model that kl_from_root is measured from, or None


def load_sample_context(settings: Sampling, processes: Processes, job: JobDirectory) -> SampleContext:
    """Load models and prompts. Raises BadInput if one cannot be read or does not fit the others."""
    policy, tokenizer = load_policy(settings.model)
    freeze(policy)
    prompts = read_prompts(tokenizer, job.rows("prompts.jsonl"), settings)
    check_positions(policy, [prompt.tokens for prompt in prompts], settings.max_completion_tokens)
    scoring = load_reward_model(settings.reward_model) if settings.reward_model else None
    if scoring is not None:
        turns = turns_to_fit(settings, policy, scoring[0].network)
        check_scoring_positions(scoring, [prompt.row for prompt in prompts], tokenizer, settings, turns)
    root = load_root(settings, policy, tokenizer, prompts)
    return SampleContext(settings, processes, policy, tokenizer, prompts, scoring, root)


def load_root(settings: Sampling, policy: Any, tokenizer: Any, prompts: Sequence[Prompt]) -> Any:
    """Return the model that kl_from_root is measured from, or None. Raises BadInput if it reads other tokens."""
    if not settings.root_model:
        return None
    root, root_tokenizer = load_policy(settings.root_model)
    if not same_tokens(tokenizer, root_tokenizer):
        raise BadInput("model and root_model must have the same tokenizer")
    written = turns_to_fit(settings, policy, root) * settings.max_completion_tokens
    check_positions(root, [prompt.tokens for prompt in prompts], written, "the root model")
    return freeze(root)


def write_completions(
    context: SampleContext,
    job: JobDirectory,
    stop: StopSignal,
    describe: Callable[[Sequence[Dialogue], int], Sequence[Row]],
) -> list[Row]:
    """Write all completions, and return a row of each in the order of the prompts.

    describe: returns the row of each dialogue of a batch; its second argument is the step. "number" is added to a row.
    Rows of finished batches are read from the saved state. Raises Stopped after a batch if a stop was requested.
    """
    settings, processes = context.settings, context.processes
    plan = plan_batches(context.prompts, settings.completions_per_prompt, settings.batch_completions)
    models = (context.policy,) if context.root is None else (context.policy, context.root)
    tools = EpisodeContext(settings, context.tokenizer, environment_factory(settings), models, context.scoring)
    write = turn_writer(context)
    step, done = load_rows(job.state, plan) if job.state is not None else (0, [])
    job.truncate_metrics(step)
    while step < len(plan):
        step += 1
        mine = share(plan[step - 1], processes.rank, processes.count)
        dialogues = [Dialogue(tools, prompt_of(context, number), number) for number in mine]
        play(dialogues, mine, write)
        for dialogue in dialogues:
            check_finite("the policy's log-probability", sum(dialogue.log_probs), step)
        rows = [{"number": n, **row} for n, row in zip(mine, describe(dialogues, step), strict=True)]
        done += processes.gather(rows)
        tokens = processes.sum_of(sum(map(token_count, dialogues)))
        job.append_metrics(step, len(plan), samples=float(len(done)), tokens=tokens)
        if step == len(plan):
            job.append_samples(step, first_samples(context, done))
        stopping = processes.any(stop.received)
        if stopping or step % SAVE_EVERY == 0:
            job.save_folder("state", partial(save_rows, step, done))
        if stopping and step < len(plan):
            raise Stopped
    return sorted(done, key=lambda row: int(row["number"]))


def turn_writer(context: SampleContext) -> Callable[[list[list[int]], list[int]], list[Completion]]:
    """Return a function that writes the next turn after each of some token sequences, by numbered random choices."""
    settings = context.settings
    params: SamplingParams = sampling_params_for(
        context.policy,
        context.tokenizer,
        settings.max_completion_tokens,
        settings.temperature,
        settings.top_p,
        settings.seed,
    )
    rows_at_once = MicroBatches(settings.batch_completions, unit="completions")

    def write(texts: list[list[int]], numbers: list[int]) -> list[Completion]:
        with computing_in(settings.dtype):
            return rows_at_once.attempt([1] * len(texts), partial(sample, context.policy, texts, numbers, params))

    return write


def plan_batches(prompts: Sequence[Prompt], per_prompt: int, batch: int) -> list[list[int]]:
    """Return the numbers of the completions in batches of prompts of similar lengths."""
    numbers = sorted(range(len(prompts) * per_prompt), key=lambda n: (len(prompts[n // per_prompt].tokens), n))
    return [numbers[start : start + batch] for start in range(0, len(numbers), batch)]


def prompt_of(context: SampleContext, number: int) -> Prompt:
    """Return the prompt that the completion of this number answers."""
    return context.prompts[number // context.settings.completions_per_prompt]


def place_of(context: SampleContext, number: int) -> Row:
    """Return the prompt's id and the index among its completions of the completion of this number, for its row."""
    index = number % context.settings.completions_per_prompt
    return {"prompt_id": prompt_of(context, number).row.get("prompt_id"), "index": index}


def first_samples(context: SampleContext, rows: Sequence[Row]) -> list[Row]:
    """Return the first completion of each of the first prompts, for samples_at_steps.jsonl."""
    per_prompt = context.settings.completions_per_prompt
    numbers = range(0, FIRST_PROMPTS * per_prompt, per_prompt)
    firsts = sorted((row for row in rows if row["number"] in numbers), key=lambda row: int(row["number"]))
    return [
        {
            "prompt_id": prompt_of(context, row["number"]).row.get("prompt_id"),
            "messages": prompt_of(context, row["number"]).row["messages"],
            **{name: row[name] for name in ("text", "turns") if name in row},
        }
        for row in firsts
    ]


def answer_of(dialogue: Dialogue) -> Answer:
    """Return the last turn of a dialogue that is over."""
    assert dialogue.answer is not None
    return dialogue.answer


def written(dialogue: Dialogue) -> Row:
    """Return the text of a completion, or the turns of a dialogue, for its row."""
    answer = answer_of(dialogue)
    return {"turns": list(answer.turns)} if answer.turns else {"text": answer.text}


def token_count(dialogue: Dialogue) -> int:
    """Return the number of the policy's tokens in all turns, end-of-turn tokens included."""
    return sum(turn.end - turn.start for turn in dialogue.turns)


def log_ratios(context: SampleContext, dialogues: Sequence[Dialogue]) -> list[float | None]:
    """Return log π(y|x) − log π_root(y|x), nats, over the policy's tokens of all turns; None without a root model."""
    if context.root is None:
        return [None] * len(dialogues)
    settings = context.settings
    episodes, micro_batches = episodes_of(dialogues, settings), MicroBatches(settings.micro_batch_tokens)
    under_root = log_probs_of(context.root, episodes, settings.temperature, settings.dtype, micro_batches)
    return [
        math.fsum(dialogue.log_probs) - float(log_probs.double().sum())
        for dialogue, log_probs in zip(dialogues, under_root, strict=True)
    ]


def save_rows(step: int, rows: Sequence[Row], folder: Path) -> None:
    (folder / "samples.json").write_text(json.dumps([step, rows]), "utf-8")


def load_rows(folder: Path, plan: Sequence[Sequence[int]]) -> tuple[int, list[Row]]:
    """Return the number of finished batches and their rows. Raises BadInput if they are not the plan's first ones."""
    step, rows = json.loads((folder / "samples.json").read_text("utf-8"))
    if sorted(row["number"] for row in rows) != sorted(itertools.chain(*plan[:step])):
        raise BadInput(f"{folder} was saved with other settings or prompts: delete it to start the job again")
    return step, rows
