"""Export formats. Each module of this package registers one; a new module needs no entry anywhere else."""

from collections.abc import Iterator, Mapping
from importlib import import_module
from pkgutil import iter_modules

from django.db.models import Q

from feedback.export import aggregation, ranking_record, resampling
from feedback.export.formats.registry import FORMATS
from feedback.export.ranking_record import Row, retraction
from feedback.export.reader import Reader
from feedback.models import Project

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")


def lines(
    project: Project,
    format_name: str,
    after: int = 0,
    until: int | None = None,
    *,
    split: str | None = None,
    where: Q = ranking_record.EVERYTHING,
    reliability: Mapping[int, float] | None = None,
    include_flagged: bool = False,
    ties: str | None = None,
    aggregated: bool = False,
    resampled: bool = False,
) -> Iterator[Row]:
    """Return the project's rankings in a format.

    ties: one of `reader.TIES`; the format's default by default. aggregated: one ranking a comparison
    (`aggregation.consensus`). resampled: rows are repeated or left out instead of weighted. The other parameters are
    those of `ranking_record.rankings`.
    """
    chosen = FORMATS[format_name]
    rows = ranking_record.rankings(
        project,
        after,
        until,
        split=split,
        where=where,
        reliability=reliability,
        details=True,
        include_flagged=include_flagged,
        by_comparison=aggregated,
    )
    if aggregated:
        rows = aggregation.aggregated(rows)
    if resampled:
        rows = resampling.resampled(rows)
    reader = Reader(after, ties or chosen.ties[0])
    if reader.ties == "omitted" and chosen.ties[0] == "rows":
        rows = _without_ties(rows, reader)
    return chosen.convert(rows, reader)


def _without_ties(rows: Iterator[Row], reader: Reader) -> Iterator[Row]:
    """Leave out rankings that tie all completions."""
    for row in rows:
        if "retracted" in row or max(row["ranks"]) > 1:
            yield row
        elif reader.after and row["revision"] > 1:
            yield retraction(row, "tied")
