"""What a round really brought: the hidden utility of fresh completions of prompts that nothing was trained on.

Checkpoints answer the same held-out prompts by the program `sample`, at the temperature and length of the project's
own rounds (temperature 1 in the built-in demo), and the utility of their texts is compared. People, annotators and
reward models see none of this.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from feedback.models import Project, Prompt
from training.demo.annotators import pair_accuracy
from training.demo.utility import utility
from training.learner.runtime.jobdir import JobDirectory
from training.run_round import jobs, process

PROMPTS = 320  # held-out prompts at most; the interval is some ± 4 points
COMPLETIONS = 4  # of each prompt, so that a reward model has pairs to judge


@dataclass(frozen=True)
class Sample:
    """Completions of held-out prompts: a list a prompt, in the order of the prompts."""

    utilities: list[list[float]]
    scores: list[list[float]]  # the reward model's; empty lists without one

    def mean_utility(self) -> float:
        return mean(value for values in self.utilities for value in values)


@dataclass(frozen=True)
class Share:
    """A share with its 95 % interval."""

    value: float
    low: float
    high: float


def draw(project: Project, directory: Path, model: str, settings: dict[str, Any], reward_model: str = "") -> Sample:
    """Completions by a model's folder, written into a job directory (or found there).

    `settings` are those of the rounds' own `sample` program. Raises launch.process.ProgramFailed with a sentence.
    """
    directory.mkdir(parents=True, exist_ok=True)
    job = JobDirectory(directory)
    prompts = list(jobs.prompt_rows(held_out_prompts(project)))
    if job.result() is None:
        own = {"completions_per_prompt": COMPLETIONS, "model": model, "reward_model": reward_model, "seed": 0}
        job.write_rows("prompts.jsonl", iter(prompts))
        job.write_config(settings | own)
        process.run("sample", directory, 1, lambda: False)
    return read(job, prompts)


def held_out_prompts(project: Project) -> list[int]:
    """The first of the project's held-out prompts, always the same ones."""
    found = project.prompts.filter(split=Prompt.Split.HELD_OUT).order_by("pk")
    return list(found.values_list("pk", flat=True)[:PROMPTS])


def read(job: JobDirectory, prompts: Sequence[dict[str, Any]]) -> Sample:
    """The samples of a finished job, each with its utility."""
    messages = {row["prompt_id"]: row["messages"][-1]["content"] for row in prompts}
    utilities: dict[int, list[float]] = defaultdict(list)
    scores: dict[int, list[float]] = defaultdict(list)
    for row in job.rows("samples.jsonl"):
        number = row["prompt_id"]
        utilities[number].append(utility(messages[number], row["text"]))
        if row["score"] is not None:
            scores[number].append(row["score"])
    return Sample([utilities[number] for number in messages], [scores[number] for number in messages])


def win_rate(new: Sample, base: Sample) -> Share:
    """How often a completion of one beats one of the other to the same prompt, a draw being half a win.

    Prompts are what was sampled at random, so the interval is that of the mean of their own rates (normal, 95 %).
    """
    rates = [
        mean((a > b) + (a == b) / 2 for a in ours for b in theirs)
        for ours, theirs in zip(new.utilities, base.utilities, strict=True)
    ]
    middle, half = mean(rates), 1.959964 * stdev(rates) / math.sqrt(len(rates))
    return Share(middle, max(0.0, middle - half), min(1.0, middle + half))


def noiseless_accuracy(*samples: Sample) -> float | None:
    """The share of pairs of one model's completions of one prompt that the reward model puts in the utility's order."""
    utilities = [value for sample in samples for values in sample.utilities for value in values]
    scores = [value for sample in samples for values in sample.scores for value in values]
    groups, start = [], 0
    for size in (len(values) for sample in samples for values in sample.utilities):
        groups.append(range(start, start + size))
        start += size
    return pair_accuracy(scores.__getitem__, utilities.__getitem__, groups)
