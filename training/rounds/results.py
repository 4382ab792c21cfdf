"""Results of a finished round: read from its directory, then written in one transaction."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from feedback import imports
from feedback.actions.trials import start_trial
from feedback.models import Import, Prompt, Source, Trial
from training import checkpoints
from training.learner.runtime.jobdir import JobDirectory
from training.models import Checkpoint, Round
from training.rounds import mixtures, named_checkpoints
from training.rounds import settings as round_settings
from training.rounds.grouping import Candidate, Grouping, candidate, grouped, mixed_group
from training.rounds.recipes.description import Job
from training.rounds.sources import NEW, turn_order

BATCH_ROWS = 20_000  # rows per database statement
PARAMETERS = ("temperature", "top_p", "seed")
FIGURES = (
    *("index", "ended", "truncated", "tokens", "score"),
    *("model", "finish_reason", "prompt_tokens"),  # of endpoints
)
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
    mixed: Mapping[str, list[dict[str, Any]]] = field(
        default_factory=dict
    )  # the same by each further source of a mixture, by its key
    wanted: Mapping[int, Mapping[str, int]] = field(
        default_factory=dict
    )  # how many completions of each source are compared, by prompt; none without a mixture
    groups: Grouping | None = None  # of the samples; None: `write` makes them

    @classmethod
    def read(cls, round_: Round, directory: Path) -> Self:
        """Read the outcome from the round's directory. It takes some time, so no transaction may be open."""
        samples = list(_completions(round_, directory / "samples"))
        jobs = [job for job in round_.jobs if job.source]
        outcome = cls(
            model=_new_model(round_, directory, "model"),
            reward_model=_new_model(round_, directory, "reward_model"),
            samples=samples,
            baseline=list(_completions(round_, directory / "baseline")),
            tried=[list(_completions(round_, directory / job.name)) for job in _jobs_of_checkpoints(round_)],
            mixed={job.source: list(_completions(round_, directory / job.name)) for job in jobs if job.source != NEW},
            wanted=_wanted(directory, jobs),
        )
        return replace(outcome, groups=_grouping(round_, outcome))


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
    job = JobDirectory(directory, is_writer=False)
    # A source of a mixture has settings of its own.
    settings = round_.settings["sample"] | (job.config() if (directory / "config.json").is_file() else {})
    names = ("temperature", "top_p", "max_completion_tokens") if "endpoint" in settings else PARAMETERS
    parameters = {name: settings[name] for name in names} | {"round": round_.number}
    for row in job.rows("samples.jsonl"):
        figures = {name: row[name] for name in FIGURES if row.get(name) is not None}
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
    groups = outcome.groups or _grouping(round_, outcome)
    samples = _of_known_prompts(round_, outcome.samples)
    baseline = _of_known_prompts(round_, outcome.baseline)
    checkpoint = _create_checkpoint(round_, outcome) if round_.learns else None
    source = checkpoint.source if checkpoint else round_.base.source
    mixed = {NEW if outcome.wanted else "": _ids_by_prompt(samples, _add_completions(round_, source, samples))}
    _add_completions(round_, round_.base.source, baseline)
    for one in mixtures.sources_of(round_):
        if one.key in outcome.mixed:
            rows = _of_known_prompts(round_, outcome.mixed[one.key])
            ids = _add_completions(round_, mixtures.source_row(round_, one, source), rows)
            mixed[one.key] = _ids_by_prompt(rows, ids)
    _add_comparisons(round_, _groups_of_ids(mixed, groups))
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


def _wanted(directory: Path, jobs: Sequence[Job]) -> dict[int, dict[str, int]]:
    """Return how many completions of each source of a mixture are compared, by prompt."""
    wanted: dict[int, dict[str, int]] = {}
    for job in jobs:
        for row in JobDirectory(directory / job.name, is_writer=False).rows("prompts.jsonl"):
            if row["compared"]:
                wanted.setdefault(row["prompt_id"], {})[job.source] = row["compared"]
    return wanted


def _grouping(round_: Round, outcome: Outcome) -> Grouping:
    """Return the groups of the new completions that are compared."""
    made = Grouping()
    if outcome.wanted:
        candidates = {key: _by_prompt(rows) for key, rows in {NEW: outcome.samples, **outcome.mixed}.items()}
        for prompt_id, counts in outcome.wanted.items():
            ordered = {key: counts[key] for key in turn_order(prompt_id, list(counts))}
            of_prompt = [
                candidate(key, place, row) for key in ordered for place, row in candidates[key].get(prompt_id, [])
            ]
            made.by_prompt[prompt_id] = _places(mixed_group(of_prompt, ordered, made.tally))
        return made
    settings = round_settings.completed(round_.settings)
    size, spare = settings["round"]["comparison_size"], settings["round"]["spare_completions"]
    for prompt_id, rows in _by_prompt(outcome.samples).items():
        most = max(1, math.ceil((len(rows) - spare) / size))
        groups = grouped([candidate("", place, row) for place, row in rows], size, most, made.tally)
        made.by_prompt[prompt_id] = _places(groups)
    return made


def _places(groups: list[list[Candidate]]) -> list[list[tuple[str, int]]]:
    return [[(one.source, one.place) for one in group] for group in groups]


def _by_prompt(rows: list[dict[str, Any]]) -> dict[int, list[tuple[int, dict[str, Any]]]]:
    """Return the rows of each prompt, with their place among those of the same prompt."""
    by_prompt: dict[int, list[tuple[int, dict[str, Any]]]] = {}
    for row in rows:
        of_prompt = by_prompt.setdefault(row["prompt_id"], [])
        of_prompt.append((len(of_prompt), row))
    return by_prompt


def _ids_by_prompt(rows: list[dict[str, Any]], ids: list[int]) -> dict[int, list[int]]:
    by_prompt: dict[int, list[int]] = {}
    for row, completion_id in zip(rows, ids, strict=True):
        by_prompt.setdefault(row["prompt_id"], []).append(completion_id)
    return by_prompt


def _groups_of_ids(ids_by_source: dict[str, dict[int, list[int]]], groups: Grouping) -> list[list[int]]:
    """Return the groups as ids of completions, those of prompts that are still there."""
    known = {prompt_id for ids in ids_by_source.values() for prompt_id in ids}
    return [
        [ids_by_source[source][prompt_id][place] for source, place in group]
        for prompt_id, of_prompt in groups.by_prompt.items()
        if prompt_id in known
        for group in of_prompt
    ]
