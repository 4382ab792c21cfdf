"""Evaluations: rounds by the recipe evaluate, which measure a checkpoint and make none."""

import csv
import io
from dataclasses import dataclass
from typing import Any

from django.db.models import OuterRef, QuerySet, Subquery
from django.utils.translation import gettext as _

from feedback.errors import NotComputedYet
from feedback.models import Project, User
from feedback.quality.ratings import Rating
from feedback.reports.source_ratings import get_ratings
from training.models import Checkpoint, Round
from training.rounds.recipes.description import Fact, Text
from training.rounds.recipes.evaluate import FIGURES, NAME
from training.rounds.start import start_sampling

MAX_EVALUATIONS = 6  # columns of a checkpoint's table
HEADLINES = ("similarity", "reward_model", "kl_from_root")  # shown with a checkpoint
COLUMNS = ("value", "low", "high", "count")


@dataclass(frozen=True)
class Row:
    """A row of the table: a figure with its 95 % interval, None where there is none."""

    name: str
    label: Text
    note: Text
    value: float
    low: float | None
    high: float | None
    count: int  # prompts


def evaluate(project: Project, actor: User | None, checkpoint: Checkpoint) -> Round:
    """Create a waiting round that evaluates the checkpoint. Raises as `start_sampling` does."""
    return start_sampling(project, actor, {"round": {"recipe": NAME}}, checkpoint)


def figures_of(round_: Round) -> dict[str, dict[str, Any]]:
    """Return the figures of an evaluation by name; {} for another round, and before its end."""
    figures: dict[str, dict[str, Any]] = round_.results.get(NAME, {}).get("metrics", {})
    return figures


def table_of(round_: Round) -> list[Row]:
    """Return the rows of the evaluation's table; none for another round, and before its end."""
    figures = figures_of(round_)
    known = {fact.key: fact for fact in FIGURES}
    names = [*(name for name in known if name in figures), *sorted(set(figures) - set(known))]
    facts = [known.get(name, Fact(name, name)) for name in names]
    return [
        Row(fact.key, fact.label, _note(round_, fact), *(figures[fact.key][column] for column in COLUMNS))
        for fact in facts
    ]


def _note(round_: Round, fact: Fact) -> Text:
    """Return the note on a figure. That of a score names the reward model: scores of two models do not compare."""
    if fact.key != "reward_model":
        return fact.note
    owner = round_.newest_reward_model
    return _("by the reward model of %(checkpoint)s") % {"checkpoint": owner} if owner else ""


def as_json(round_: Round) -> dict[str, Any]:
    """Return the figures as a JSON object, with the owner of the reward model if there is one."""
    owner = round_.newest_reward_model if "reward_model" in figures_of(round_) else None
    return {
        "round": round_.number,
        "checkpoint": str(round_.base),
        "reward_model": str(owner) if owner else None,
        "metrics": figures_of(round_),
    }


def as_csv(round_: Round) -> str:
    """Return the table as CSV, with an empty field where there is no interval."""
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow(("metric", *COLUMNS))
    writer.writerows((row.name, row.value, row.low, row.high, row.count) for row in table_of(round_))
    return file.getvalue()


def with_newest(checkpoints: QuerySet[Checkpoint]) -> QuerySet[Checkpoint]:
    """Add the number of the newest finished evaluation of each checkpoint, `evaluation`, and its `figures`; or None."""
    finished = Round.objects.filter(
        base=OuterRef("pk"), status=Round.Status.FINISHED, settings__round__recipe=NAME
    ).order_by("-number")
    return checkpoints.annotate(
        evaluation=Subquery(finished.values("number")[:1]),
        figures=Subquery(finished.values(f"results__{NAME}__metrics")[:1]),
    )


def headlines(checkpoint: Any) -> list[tuple[Text, float]]:
    """Return the most important figures of a checkpoint of `with_newest`: labels and values."""
    labels = {fact.key: fact.label for fact in FIGURES}
    figures = checkpoint.figures or {}
    return [(labels[name], figures[name]["value"]) for name in HEADLINES if name in figures]


@dataclass(frozen=True)
class HistoryRow:
    """A figure in several evaluations of a checkpoint; None where one of them has no such figure."""

    label: Text
    note: Text
    cells: list[Row | None]


def evaluations_of(checkpoint: Checkpoint) -> list[Round]:
    """Return the newest finished evaluations of a checkpoint, newest first."""
    finished = checkpoint.rounds_from.filter(status=Round.Status.FINISHED, settings__round__recipe=NAME)
    return list(finished.order_by("-number")[:MAX_EVALUATIONS])


def history_of(rounds: list[Round]) -> list[HistoryRow]:
    """Return the figures of these evaluations side by side.

    The notes are those of the newest one that has the figure. A score is by the reward model of its own evaluation.
    """
    tables = [{row.name: row for row in table_of(round_)} for round_ in rounds]
    known = [fact.key for fact in FIGURES]
    names = dict.fromkeys(name for table in tables for name in table)
    ordered = sorted(names, key=lambda name: known.index(name) if name in known else len(known))
    rows = []
    for name in ordered:
        cells = [table.get(name) for table in tables]
        newest = next(cell for cell in cells if cell is not None)
        rows.append(HistoryRow(newest.label, newest.note, cells))
    return rows


def rating_of(checkpoint: Checkpoint) -> Rating | None:
    """Return what people say of the checkpoint's completions: its rating with interval and counts.

    None if nobody ranked one, or the ratings of a long record are not computed yet.
    """
    try:
        ratings = get_ratings(checkpoint.project).ratings
    except NotComputedYet:
        return None
    return next((rating for rating in ratings.ratings if rating.source_id == checkpoint.source_id), None)
