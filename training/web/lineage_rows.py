"""Parts of the page of all checkpoints: rows of the lineage with the geometry of its graph, and sizes on disk."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from feedback.quality.ratings import Coefficient
from training.lineage import Entry, Lineage
from training.models import Checkpoint, Round
from training.web.charts import Dot, row_charts
from training.web.rating_rows import state_of

LANE = 20  # pixels from one line to the next
MARGIN = 14  # from the left edge to the first one


@dataclass(frozen=True)
class LineageRow:
    """A row of the table; x in pixels."""

    entry: Entry
    x: int
    passing: list[int]  # x of the lines that pass
    branch: int | None  # x that its line branches off from
    rating: Coefficient | None
    state: str  # why it is not rated, or ""
    dot: Dot | None

    @property
    def made_by(self) -> Round | None:
        return getattr(self.entry.checkpoint, "round", None)


@dataclass(frozen=True)
class Sizes:
    """Bytes on disk of all checkpoints, and of the retired ones whose files can be deleted."""

    total: int
    deletable: int
    unmeasured: int  # number of checkpoints


def rows_of(lineage: Lineage) -> list[LineageRow]:
    """Return the rows of the table, with the ratings on one scale."""
    values = [_rating(entry) for entry in lineage.entries]
    return [
        LineageRow(
            entry,
            x=_x(entry.place.lane),
            passing=[_x(lane) for lane in entry.place.passing],
            branch=None if entry.place.branches_from is None else _x(entry.place.branches_from),
            rating=value,
            state="" if entry.rating is None else state_of(entry.rating.status),
            dot=dot,
        )
        for entry, value, dot in zip(lineage.entries, values, row_charts(values, 0.0), strict=True)
    ]


def width_of(lineage: Lineage) -> int:
    """Return the width of the graph in pixels."""
    return _x(lineage.lanes - 1) + MARGIN


def sizes_of(checkpoints: Iterable[Checkpoint]) -> Sizes:
    """Return the sum of the stored sizes. Models that were imported from one folder count once."""
    present = {one.path: one for one in checkpoints if one.files_deleted_at is None}.values()
    measured = [one for one in present if one.bytes_on_disk is not None]
    deletable = [one for one in measured if one.retired_at is not None and one.kind == Checkpoint.Kind.ROUND]
    return Sizes(_sum(measured), _sum(deletable), len(present) - len(measured))


def _sum(checkpoints: Iterable[Any]) -> int:
    return sum(one.bytes_on_disk for one in checkpoints)


def _x(lane: int) -> int:
    return MARGIN + LANE * lane


def _rating(entry: Entry) -> Coefficient | None:
    rating = entry.rating
    if rating is None or rating.value is None:
        return None
    return Coefficient("rating", rating.value, rating.low, rating.high)
