"""Export formats. Each module of this package registers one; a new module needs no entry anywhere else."""

from collections.abc import Iterator, Mapping
from importlib import import_module
from pkgutil import iter_modules

from feedback.export import ranking_record
from feedback.export.formats.registry import FORMATS
from feedback.export.ranking_record import Row
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
    reliability: Mapping[int, float] | None = None,
    include_flagged: bool = False,
) -> Iterator[Row]:
    """Return the project's rankings in a format; the parameters are those of `ranking_record.rankings`."""
    rows = ranking_record.rankings(
        project, after, until, split=split, reliability=reliability, details=True, include_flagged=include_flagged
    )
    return FORMATS[format_name].convert(rows, after)
