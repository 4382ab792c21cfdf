"""What a finished round brought: read from its directory first, then written in one transaction."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from feedback import imports
from feedback.models import Import, Prompt, Source
from training import checkpoints
from training.learner.runtime.jobdir import JobDirectory
from training.models import Checkpoint, Round

PART = 20_000  # rows given to the database at a time


@dataclass(frozen=True)
class Outcome:
    """Where the new models are ("" where none was made), and what was written with them."""

    model: str
    reward_model: str
    samples: list[dict[str, Any]]  # rows for intake.add_completions, a prompt's own in a row
    baseline: list[dict[str, Any]]  # the same by the base, for prompts among those

    @classmethod
    def read(cls, round_: Round, directory: Path) -> Self:
        return cls(
            model=str(directory / "policy" / "model") if round_.learns else "",
            reward_model=str(directory / "reward" / "model") if round_.uses_reward_model else "",
            samples=list(_completions(round_, directory / "samples")),
            baseline=list(_completions(round_, directory / "baseline")),
        )


def _completions(round_: Round, directory: Path) -> Iterator[dict[str, Any]]:
    """The rows of a job's samples.jsonl as intake takes them; none when there was no such job."""
    if not directory.is_dir():
        return
    own = round_.settings["sample"]
    how = {name: own[name] for name in ("temperature", "top_p", "seed")} | {"round": round_.number}
    for row in JobDirectory(directory, is_writer=False).rows("samples.jsonl"):
        said = {name: row[name] for name in ("index", "ended", "tokens", "score") if row.get(name) is not None}
        # A byte-level model can say NUL, which PostgreSQL keeps in no text.
        yield {"prompt_id": row["prompt_id"], "text": row["text"].replace("\0", ""), "sampling": how | said}


def write(round_: Round, outcome: Outcome) -> Checkpoint | None:
    """The round's checkpoint (None: it learned nothing), the completions, and the comparisons of the new ones.

    The new comparisons come before all that still wait to be ranked. Runs in the caller's transaction.
    """
    imports.block_undo(round_.project)
    samples, baseline = (_of_known_prompts(round_, rows) for rows in (outcome.samples, outcome.baseline))
    made = _make_checkpoint(round_, outcome) if round_.learns else None
    source = made.source if made else round_.base.source
    ids = _add_completions(round_, source, samples)
    _add_completions(round_, round_.base.source, baseline)
    _add_comparisons(round_, list(_groups(samples, ids, round_.settings["round"]["comparison_size"])))
    return made


def _make_checkpoint(round_: Round, outcome: Outcome) -> Checkpoint:
    source = imports.get_source(round_.project, f"round-{round_.number:04d}", Source.Kind.CHECKPOINT)
    # Read anew, and held until this is committed: its check may end while the round does.
    base = Checkpoint.objects.select_for_update(of=("self",)).get(pk=round_.base_id)
    return Checkpoint.objects.create(
        project=round_.project,
        source=source,
        kind=Checkpoint.Kind.ROUND,
        path=outcome.model,
        reward_model_path=outcome.reward_model,
        parent=base,
        verdict=base.verdict,  # of the same architecture
        verdict_reason=base.verdict_reason,
    )


def _of_known_prompts(round_: Round, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Drop the rows of prompts whose import was undone while the round ran; any other unknown prompt is an error."""
    if not Import.objects.filter(project=round_.project, undone_at__gte=round_.created_at).exists():
        return rows
    wanted = {row["prompt_id"] for row in rows}
    known = set(Prompt.objects.filter(project=round_.project, pk__in=wanted).values_list("pk", flat=True))
    return [row for row in rows if row["prompt_id"] in known]


def _add_completions(round_: Round, source: Source, rows: list[dict[str, Any]]) -> list[int]:
    ids: list[int] = []
    for begin in range(0, len(rows), PART):
        ids += imports.add_completions(round_.project, source, rows[begin : begin + PART])
    return ids


def _add_comparisons(round_: Round, groups: list[list[int]]) -> None:
    """Comparisons of the groups; a share of them, evenly spread, wants a ranking more, to see how far people agree."""
    priority = checkpoints.next_priority(round_.project)
    wanted, share = round_.project.wanted_rankings, round_.settings["round"]["second_opinions"]
    again = [int((number + 1) * share) > int(number * share) for number in range(len(groups))]
    for more in (False, True):
        chosen = [group for group, is_again in zip(groups, again, strict=True) if is_again == more]
        for begin in range(0, len(chosen), PART):
            part = chosen[begin : begin + PART]
            imports.add_comparisons(round_.project, part, wanted_rankings=wanted + more, priority=priority, again=True)


def _groups(rows: list[dict[str, Any]], ids: list[int], size: int) -> Iterator[list[int]]:
    """The completions of each prompt, `size` to a comparison; what is left over of a prompt makes a smaller one."""
    by_prompt: dict[int, list[int]] = {}
    for row, completion_id in zip(rows, ids, strict=True):
        by_prompt.setdefault(row["prompt_id"], []).append(completion_id)
    for completions in by_prompt.values():
        distinct = list(dict.fromkeys(completions))  # the same text twice is one completion
        for begin in range(0, len(distinct), size):
            if len(group := distinct[begin : begin + size]) > 1:
                yield group
