"""Samples at fixed prompts: a bounded part of a program's samples_at_steps.jsonl, stored while the program runs."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from django.db import transaction
from django.db.models import Count, Max

from feedback.models import Prompt
from training.models import Round, SampleAtStep
from training.rounds.lifecycle import Claim, check_claim
from training.rounds.recipes.description import Job

MAX_PROMPTS = 8  # of a job
MAX_STEPS = 24  # of a job: the first, the newest, and steps in between at similar distances
MAX_CHARACTERS = 20_000  # of a completion


def record(claim: Claim, job: str, lines: Sequence[dict[str, Any]], from_start: bool) -> None:
    """Store lines of samples_at_steps.jsonl, and delete steps that are more than MAX_STEPS. Raise ClaimLost.

    `from_start`: the lines are the whole file, which replaces what is stored.
    """
    stored = SampleAtStep.objects.filter(round_id=claim.round_id, job=job)
    with transaction.atomic():
        check_claim(claim)
        if from_start:
            stored.delete()
        prompts = [*stored.order_by("pk").values_list("prompt_id", flat=True), *(line["prompt_id"] for line in lines)]
        kept_prompts = list(dict.fromkeys(prompts))[:MAX_PROMPTS]
        kept_steps = thinned({*stored.values_list("step", flat=True), *(line["step"] for line in lines)})
        stored.exclude(step__in=kept_steps).delete()
        rows = {
            (line["step"], line["prompt_id"]): SampleAtStep(
                round_id=claim.round_id,
                job=job,
                step=line["step"],
                prompt_id=line["prompt_id"],
                reward=line.get("reward"),
                **_cut(line),
            )
            for line in lines
            if line["step"] in kept_steps and line["prompt_id"] in kept_prompts
        }
        SampleAtStep.objects.bulk_create(
            rows.values(),
            update_conflicts=True,
            unique_fields=["round", "job", "step", "prompt_id"],
            update_fields=["text", "turns", "reward"],
        )


def thinned(steps: Iterable[int]) -> list[int]:
    """Return at most MAX_STEPS of the steps: the first, the last, and of the others those that stand farthest apart."""
    kept = sorted(steps)
    stride = len(kept) // (10 * MAX_STEPS) + 1  # bounds the loop below for a long file
    kept = [*kept[:-1:stride], *kept[-1:]]
    while len(kept) > MAX_STEPS:
        gaps = [after - before for before, after in zip(kept, kept[2:], strict=False)]
        del kept[1 + gaps.index(min(gaps))]
    return kept


def _cut(line: dict[str, Any]) -> dict[str, Any]:
    """Return the text or turns of a line, cut. A byte-level model can write NUL, which PostgreSQL cannot store."""
    if "turns" not in line:
        return {"text": line["text"].replace("\0", "")[:MAX_CHARACTERS]}
    most = MAX_CHARACTERS // len(line["turns"])
    turns = [{"role": turn["role"], "content": turn["content"].replace("\0", "")[:most]} for turn in line["turns"]]
    return {"text": "", "turns": turns}


@dataclass(frozen=True)
class PromptSamples:
    """A prompt with its completions at some steps; None: there is none of this step."""

    prompt: Prompt
    samples: list[tuple[int, SampleAtStep | None]]


@dataclass(frozen=True)
class StepSamples:
    """Samples of a round's job at its first step, a chosen one and its newest."""

    job: Job
    steps: list[int]  # all that are stored
    chosen: int | None  # None with less than three steps
    prompts: list[PromptSamples]
    version: str  # changes when there is something new


def samples_version(round_: Round) -> str:
    """Return a text that changes when there are new samples; "" if there are none."""
    counts = round_.samples_at_steps.aggregate(newest=Max("pk"), rows=Count("pk"))
    return f"{counts['newest']}.{counts['rows']}" if counts["rows"] else ""


def samples_at_steps(round_: Round, chosen: int | None = None) -> StepSamples | None:
    """Return the samples of the job with the most steps; None if there are none.

    chosen: a step to show between the first and the newest; by default one in the middle.
    """
    steps: dict[str, list[int]] = {}
    for job, step in round_.samples_at_steps.order_by("step").values_list("job", "step").distinct():
        steps.setdefault(job, []).append(step)
    jobs = [job for job in round_.jobs if job.name in steps]
    if not jobs:
        return None
    job = max(jobs, key=lambda job: len(steps[job.name]))
    between = steps[job.name][1:-1]
    chosen = chosen if chosen in between else between[len(between) // 2] if between else None
    columns = sorted({steps[job.name][0], steps[job.name][-1], *([] if chosen is None else [chosen])})
    rows = round_.samples_at_steps.filter(job=job.name, step__in=columns)
    by_place = {(row.prompt_id, row.step): row for row in rows}
    prompts = round_.project.prompts.filter(pk__in={row.prompt_id for row in rows}).order_by("pk")
    return StepSamples(
        job,
        steps[job.name],
        chosen,
        [PromptSamples(prompt, [(step, by_place.get((prompt.pk, step))) for step in columns]) for prompt in prompts],
        samples_version(round_),
    )
