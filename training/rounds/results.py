"""Results of a finished round: read from its directory, then written in one transaction."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from feedback import imports
from feedback.actions.trials import start_trial
from feedback.models import Import, Prompt, Source, Trial
from training import checkpoints
from training.learner.runtime.jobdir import JobDirectory
from training.models import Checkpoint, Round
from training.rounds import named_checkpoints
from training.rounds import settings as round_settings
from training.rounds.grouping import Grouping, candidate, grouped
from training.rounds.recipes.description import Job

BATCH_ROWS = 20_000  # rows per database statement
COMPARISONS = "comparisons"  # key of `Round.results`: what became of near-duplicates


@dataclass(frozen=True)
class Outcome:
    """Folders of the new models ("" if none was trained) and the completions that the round sampled."""

    model: str
    reward_model: str
    samples: list[dict[str, Any]]  # rows for imports.add_completions, those of one prompt in a row
    baseline: list[dict[str, Any]]  # the same by the base, for some of these prompts
    tried: Sequence[
        list[dict[str, Any]]
    ] = ()  # the same by each of the checkpoints that the round names; none for most recipes
    groups: Grouping | None = None  # of the samples; None: `write` makes them

    @classmethod
    def read(cls, round_: Round, directory: Path) -> Self:
        """Read the outcome from the round's directory. It takes some time, so no transaction may be open."""
        samples = list(_completions(round_, directory / "samples"))
        return cls(
            model=_new_model(round_, directory, "model"),
            reward_model=_new_model(round_, directory, "reward_model"),
            samples=samples,
            baseline=list(_completions(round_, directory / "baseline")),
            tried=[list(_completions(round_, directory / job.name)) for job in _jobs_of_checkpoints(round_)],
            groups=_grouping(round_, samples),
        )


def _jobs_of_checkpoints(round_: Round) -> tuple[Job, ...]:
    return round_.jobs if round_.recipe.names_checkpoints else ()


def _new_model(round_: Round, directory: Path, name: str) -> str:
    """Return the folder of a model that the samples are made with, if a job of this round trained it; else ""."""
    jobs = {job.name: job for job in round_.jobs}
    source = jobs["samples"].models.get(name, "") if "samples" in jobs else ""
    return str(directory / source / "model") if source in jobs else ""


def _completions(round_: Round, directory: Path) -> Iterator[dict[str, Any]]:
    """Yield a job's samples.jsonl as rows for `imports.add_completions`; nothing if there was no such job."""
    if not directory.is_dir():
        return
    settings = round_.settings["sample"]
    parameters = {name: settings[name] for name in ("temperature", "top_p", "seed")} | {"round": round_.number}
    for row in JobDirectory(directory, is_writer=False).rows("samples.jsonl"):
        names = ("index", "ended", "truncated", "tokens", "score")
        figures = {name: row[name] for name in names if row.get(name) is not None}
        yield {"prompt_id": row["prompt_id"], **_written(row), "sampling": parameters | figures}


def _written(row: dict[str, Any]) -> dict[str, Any]:
    """Return the text or the turns of a sample. A byte-level model can write NUL, which PostgreSQL cannot store."""
    if "turns" not in row:
        return {"text": row["text"].replace("\0", "")}
    return {"turns": [{**turn, "content": turn["content"].replace("\0", "")} for turn in row["turns"]]}


def write(round_: Round, outcome: Outcome) -> Checkpoint | None:
    """Write the checkpoint, the completions, and comparisons of the new completions. Return the checkpoint, if any.

    The new comparisons get a higher priority than all others that wait to be ranked. A round that names checkpoints
    starts their trial instead, and sets `round_.trial`. Runs in the caller's transaction.
    """
    imports.block_undo(round_.project)
    if round_.recipe.names_checkpoints:
        round_.trial = _start_trial(round_, outcome.tried)
        return None
    groups = outcome.groups or _grouping(round_, outcome.samples)
    samples = _of_known_prompts(round_, outcome.samples)
    baseline = _of_known_prompts(round_, outcome.baseline)
    checkpoint = _create_checkpoint(round_, outcome) if round_.learns else None
    source = checkpoint.source if checkpoint else round_.base.source
    ids = _add_completions(round_, source, samples)
    _add_completions(round_, round_.base.source, baseline)
    _add_comparisons(round_, _groups_of_ids(samples, ids, groups))
    round_.results[COMPARISONS] = groups.tally.to_json()
    return checkpoint


def _start_trial(round_: Round, tried: Sequence[list[dict[str, Any]]]) -> Trial:
    """Store the completions of each named checkpoint, and start the trial. Raise Conflict if another trial is open."""
    settings, ids = round_.settings["round"], []
    sources = [named_checkpoints.named(round_.project, name).source for name in settings["checkpoints"]]
    for source, rows in zip(sources, tried, strict=True):
        ids += _add_completions(round_, source, _of_known_prompts(round_, rows))
    return start_trial(
        round_.project,
        sources,
        completions=ids,
        share=settings["trial_share"],
        may_train=settings["trial_may_train"],
        worthwhile_share=settings["trial_worthwhile_share"],
        actor=round_.started_by,
    )


def _create_checkpoint(round_: Round, outcome: Outcome) -> Checkpoint:
    source = imports.get_source(round_.project, f"round-{round_.number:04d}", Source.Kind.CHECKPOINT)
    # Read again and locked: the check of the base may end at the same time, and would miss the new checkpoint.
    base = Checkpoint.objects.select_for_update(of=("self",)).get(pk=round_.base_id)
    return Checkpoint.objects.create(
        project=round_.project,
        source=source,
        kind=Checkpoint.Kind.ROUND,
        path=outcome.model,
        reward_model_path=outcome.reward_model,
        parent=base,
        verdict=base.verdict,  # the architecture is the same
        verdict_reason=base.verdict_reason,
    )


def _of_known_prompts(round_: Round, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Drop rows of prompts whose import was undone while the round ran. Another unknown prompt stays: an error."""
    if not Import.objects.filter(project=round_.project, undone_at__gte=round_.created_at).exists():
        return rows
    wanted = {row["prompt_id"] for row in rows}
    known = set(Prompt.objects.filter(project=round_.project, pk__in=wanted).values_list("pk", flat=True))
    return [row for row in rows if row["prompt_id"] in known]


def _add_completions(round_: Round, source: Source, rows: list[dict[str, Any]]) -> list[int]:
    ids: list[int] = []
    for begin in range(0, len(rows), BATCH_ROWS):
        ids += imports.add_completions(round_.project, source, rows[begin : begin + BATCH_ROWS])
    return ids


def _add_comparisons(round_: Round, groups: list[list[int]]) -> None:
    """Add comparisons of the groups; an evenly spread share of them asks for one more ranking to measure agreement."""
    priority = checkpoints.next_priority(round_.project)
    wanted, share = round_.project.wanted_rankings, round_.settings["round"]["extra_ranking_share"]
    has_extra = [int((number + 1) * share) > int(number * share) for number in range(len(groups))]
    for extra in (False, True):
        chosen = [group for group, is_extra in zip(groups, has_extra, strict=True) if is_extra == extra]
        for begin in range(0, len(chosen), BATCH_ROWS):
            batch = chosen[begin : begin + BATCH_ROWS]
            imports.add_comparisons(
                round_.project, batch, wanted_rankings=wanted + extra, priority=priority, again=True
            )


def _grouping(round_: Round, rows: list[dict[str, Any]]) -> Grouping:
    """Return the groups of the new completions that are compared."""
    settings = round_settings.completed(round_.settings)
    size, spare = settings["round"]["comparison_size"], settings["round"]["spare_completions"]
    made = Grouping()
    for prompt_id, candidates in _by_prompt(rows).items():
        most = max(1, math.ceil((len(candidates) - spare) / size))
        groups = grouped([candidate("", place, row) for place, row in candidates], size, most, made.tally)
        made.by_prompt[prompt_id] = [[(one.source, one.place) for one in group] for group in groups]
    return made


def _by_prompt(rows: list[dict[str, Any]]) -> dict[int, list[tuple[int, dict[str, Any]]]]:
    """Return the rows of each prompt, with their place among those of the same prompt."""
    by_prompt: dict[int, list[tuple[int, dict[str, Any]]]] = {}
    for row in rows:
        of_prompt = by_prompt.setdefault(row["prompt_id"], [])
        of_prompt.append((len(of_prompt), row))
    return by_prompt


def _groups_of_ids(rows: list[dict[str, Any]], ids: list[int], groups: Grouping) -> list[list[int]]:
    """Return the groups as ids of completions, those of prompts that are still there."""
    by_prompt: dict[int, list[int]] = {}
    for row, completion_id in zip(rows, ids, strict=True):
        by_prompt.setdefault(row["prompt_id"], []).append(completion_id)
    return [
        [completions[place] for _source, place in group]
        for prompt_id, completions in by_prompt.items()
        for group in groups.by_prompt.get(prompt_id, [])
    ]
