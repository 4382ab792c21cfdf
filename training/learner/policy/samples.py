"""Completions of prompts, batch by batch, as the programs sample and evaluate write them; a stopped run is resumed.

The texts depend on the seed, not on the batches or the number of processes: completion n answers prompt
n // completions_per_prompt and has the random numbers of n.
"""

import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from training.learner.models.loading import computing_in, load_frozen_policy
from training.learner.models.oom_retry import MicroBatches
from training.learner.models.packing import Episodes
from training.learner.models.reward_model import load_reward_model
from training.learner.policy.dialogues import (
    Dialogue,
    EpisodeContext,
    environment_factory,
    episodes_of,
    play,
    turns_to_fit,
)
from training.learner.policy.divergence import divergences_of
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
    base: Any = None  # the checkpoint that the policy was trained from, if a program compares the two

    @property
    def others(self) -> dict[str, Any]:
        """Return the models that the policy's divergence is measured from, by the name of the figure."""
        named = {"kl_from_base": self.base, "kl_from_root": self.root}
        return {name: model for name, model in named.items() if model is not None}


def load_sample_context(settings: Sampling, processes: Processes, job: JobDirectory) -> SampleContext:
    """Load models and prompts. Raises BadInput if one cannot be read or does not fit the others."""
    policy, tokenizer = load_frozen_policy(settings.model, settings.dtype)
    prompts = read_prompts(tokenizer, job.rows("prompts.jsonl"), settings)
    check_positions(policy, [prompt.tokens for prompt in prompts], settings.max_completion_tokens)
    scoring = load_reward_model(settings.reward_model, settings.dtype) if settings.reward_model else None
    if scoring is not None:
        turns = turns_to_fit(settings, policy, scoring[0].network)
        check_scoring_positions(scoring, [prompt.row for prompt in prompts], tokenizer, settings, turns)
    root = load_root(settings, policy, tokenizer, prompts)
    return SampleContext(settings, processes, policy, tokenizer, prompts, scoring, root)


def load_root(settings: Sampling, policy: Any, tokenizer: Any, prompts: Sequence[Prompt]) -> Any:
    """Return the model that kl_from_root is measured from, or None. Raises as `load_other` does."""
    return load_other(settings, "root", policy, tokenizer, prompts) if settings.root_model else None


def load_other(settings: Any, name: str, policy: Any, tokenizer: Any, prompts: Sequence[Prompt]) -> Any:
    """Return the frozen model of the setting `<name>_model`. Raises BadInput if it reads other tokens than the policy.

    It must have positions for all that the policy may write.
    """
    model, other_tokenizer = load_frozen_policy(getattr(settings, f"{name}_model"), settings.dtype)
    if not same_tokens(tokenizer, other_tokenizer):
        raise BadInput(f"model and {name}_model must have the same tokenizer")
    written = turns_to_fit(settings, policy, model) * settings.max_completion_tokens
    check_positions(model, [prompt.tokens for prompt in prompts], written, f"the {name} model")
    return model


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
    tools, write = episode_context(context), turn_writer(context)
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


def episode_context(context: SampleContext) -> EpisodeContext:
    """Return the parts of the run that an episode needs."""
    settings, models = context.settings, (context.policy, *context.others.values())
    return EpisodeContext(settings, context.tokenizer, environment_factory(settings), models, context.scoring)


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
    """Return the first completion of each of the first prompts, for samples_at_steps.jsonl; none if rows lack texts."""
    per_prompt = context.settings.completions_per_prompt
    numbers = range(0, FIRST_PROMPTS * per_prompt, per_prompt)
    written_out = (row for row in rows if row["number"] in numbers and ("text" in row or "turns" in row))
    firsts = sorted(written_out, key=lambda row: int(row["number"]))
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


def truncation(dialogue: Dialogue) -> dict[str, bool]:
    """Return whether a dialogue is truncated, for its row; nothing for a completion of one turn that ended."""
    return {"truncated": dialogue.is_truncated} if answer_of(dialogue).turns or dialogue.is_truncated else {}


def token_count(dialogue: Dialogue) -> int:
    """Return the number of the policy's tokens in all turns, end-of-turn tokens included."""
    return sum(turn.end - turn.start for turn in dialogue.turns)


def divergences(context: SampleContext, dialogues: Sequence[Dialogue]) -> list[dict[str, float]]:
    """Return the estimates of `divergences_of` of each dialogue by the name of the figure, from all other models."""
    settings, micro_batches = context.settings, MicroBatches(context.settings.micro_batch_tokens)
    episodes = episodes_of(dialogues, settings) if dialogues else Episodes([], [])
    known: dict[int, list[float]] = {}  # by model: base and root are one in the first round
    for model in context.others.values():
        if id(model) not in known:
            known[id(model)] = divergences_of(
                context.policy, model, episodes, settings.temperature, settings.dtype, micro_batches
            )
    figures = {name: known[id(model)] for name, model in context.others.items()}
    return [{name: values[place] for name, values in figures.items()} for place in range(len(dialogues))]


def save_rows(step: int, rows: Sequence[Row], folder: Path) -> None:
    (folder / "samples.json").write_text(json.dumps([step, rows]), "utf-8")


def load_rows(folder: Path, plan: Sequence[Sequence[int]]) -> tuple[int, list[Row]]:
    """Return the number of finished batches and their rows. Raises BadInput if they are not the plan's first ones."""
    step, rows = json.loads((folder / "samples.json").read_text("utf-8"))
    if sorted(row["number"] for row in rows) != sorted(itertools.chain(*plan[:step])):
        raise BadInput(f"{folder} was saved with other settings or prompts: delete it to start the job again")
    return step, rows
