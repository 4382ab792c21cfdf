"""Measurement of a round by the hidden utility of new completions of held-out prompts.

The program `sample` lets checkpoints answer the same held-out prompts, at the temperature and length of the project's
rounds (temperature 1 in the built-in demo), and the utilities of the texts are compared. Neither annotators nor reward
models see these completions.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from feedback.models import Project, Prompt, Trial
from training.demo.annotators import choice_probabilities, pair_accuracy
from training.demo.projects import PROJECTS, SUPPORT, DemoProject, turns_of
from training.learner.runtime.jobdir import JobDirectory
from training.rounds.inputs.prompts import prompt_rows
from training.run_round import process

MAX_PROMPTS = 320  # held-out prompts; the interval is then about ± 4 points
COMPLETIONS = 4  # per prompt, so that there are pairs for the reward model


@dataclass(frozen=True)
class Sample:
    """Figures of completions of held-out prompts: one list per prompt, in the order of the prompts."""

    utilities: list[list[float]]
    scores: list[list[float]]  # of the reward model; empty lists without one

    def mean_utility(self) -> float:
        return mean(value for values in self.utilities for value in values)


@dataclass(frozen=True)
class Share:
    """Share with its 95 % interval."""

    value: float
    low: float
    high: float


def draw(project: Project, directory: Path, model: str, settings: dict[str, Any], reward_model: str = "") -> Sample:
    """Return completions of a model; sample them in the job directory unless it has them already.

    `settings` are those of the round's `sample` program. Raises `run_round.process.ProgramFailed`.
    """
    directory.mkdir(parents=True, exist_ok=True)
    job = JobDirectory(directory)
    prompts = list(prompt_rows(held_out_prompts(project)))
    if job.result() is None:
        overrides = {"completions_per_prompt": COMPLETIONS, "model": model, "reward_model": reward_model, "seed": 0}
        job.write_rows("prompts.jsonl", iter(prompts))
        job.write_config(settings | overrides)
        process.run("sample", directory, 1, lambda: False)
    return read(job, prompts, PROJECTS[project.slug])


def held_out_prompts(project: Project) -> list[int]:
    """Return the ids of the project's first held-out prompts."""
    prompts = project.prompts.filter(split=Prompt.Split.HELD_OUT).order_by("pk")
    return list(prompts.values_list("pk", flat=True)[:MAX_PROMPTS])


def read(job: JobDirectory, prompts: Sequence[dict[str, Any]], demo: DemoProject = SUPPORT) -> Sample:
    """Return the samples of a finished job with their utilities."""
    messages = {row["prompt_id"]: row["messages"][-1]["content"] for row in prompts}
    utilities: dict[int, list[float]] = defaultdict(list)
    scores: dict[int, list[float]] = defaultdict(list)
    for row in job.rows("samples.jsonl"):
        number = row["prompt_id"]
        turns = turns_of(row.get("text", ""), row.get("turns"))
        utilities[number].append(demo.utility(messages[number], turns))
        if row["score"] is not None:
            scores[number].append(row["score"])
    return Sample([utilities[number] for number in messages], [scores[number] for number in messages])


def win_rate(new: Sample, base: Sample) -> Share:
    """Return how often a new completion beats a base completion of the same prompt. Equal utilities count half.

    Prompts are the random sample, so the interval is that of the mean of the rates per prompt (normal, 95 %).
    """
    rates = [
        mean((a > b) + (a == b) / 2 for a in new_values for b in base_values)
        for new_values, base_values in zip(new.utilities, base.utilities, strict=True)
    ]
    middle, half = mean(rates), 1.959964 * stdev(rates) / math.sqrt(len(rates))
    return Share(middle, max(0.0, middle - half), min(1.0, middle + half))


def expected_trial_win_share(project: Project, trial: Trial) -> float | None:
    """Return the candidate's expected share of decisive votes in a trial of two, by the annotators' own choice model.

    It is what the votes estimate: the utilities are those of the compared texts, and the errors are averaged over. None
    without a comparison. Comparisons that were not ranked are left out.
    """
    utility, wins, losses = PROJECTS[project.slug].utility, 0.0, 0.0
    sources = list(trial.trial_sources.order_by("position").values_list("source_id", flat=True))
    ranked = trial.comparisons.filter(ranking_count__gt=0).select_related("prompt")
    for comparison in ranked.prefetch_related("items__completion"):
        message = comparison.prompt.messages[-1]["content"]
        texts = {item.completion.source_id: item.completion for item in comparison.items.all()}
        served, new = (utility(message, turns_of(texts[pk].text, texts[pk].turns)) for pk in sources)
        win, loss = choice_probabilities(new, served)
        wins, losses = wins + win, losses + loss
    return wins / (wins + losses) if wins else None


def noiseless_accuracy(*samples: Sample) -> float | None:
    """Return the share of pairs (same model, same prompt) that the reward model orders as the utility does."""
    utilities = [value for sample in samples for values in sample.utilities for value in values]
    scores = [value for sample in samples for values in sample.scores for value in values]
    groups, start = [], 0
    for size in (len(values) for sample in samples for values in sample.utilities):
        groups.append(range(start, start + size))
        start += size
    return pair_accuracy(scores.__getitem__, utilities.__getitem__, groups)
