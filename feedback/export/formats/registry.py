"""Registry of export formats: `@export_format(...)` adds one, and every list of formats is derived from it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from feedback.export.ranking_record import Row

# (rankings with details, in the order of the record; the reader's cursor) to lines
Convert = Callable[[Iterator[Row], int], Iterator[Row]]


@dataclass(frozen=True)
class ExportFormat:
    """A way to write rankings as lines of JSON."""

    name: str
    line: str  # what one line is: a noun phrase for help texts and the documentation
    convert: Convert
    default_split: str | None  # the split that is exported unless another is chosen; None: all


FORMATS: dict[str, ExportFormat] = {}


def export_format(name: str, *, line: str, default_split: str | None = None) -> Callable[[Convert], Convert]:
    """Register a function as an export format.

    name: value of `format` in the API and of `--format`. line: what one line is. default_split: set it where trainers
    read every line of the file, so that nothing is trained on held-out prompts by accident.

    The function gets the rows of `ranking_record.rankings(..., details=True)` and the reader's cursor `after`, and
    yields the lines. Rows with `retracted` must be passed on: readers by cursor depend on them.
    """

    def register(function: Convert) -> Convert:
        FORMATS[name] = ExportFormat(name, line, function, default_split)
        return function

    return register


def names() -> list[str]:
    return sorted(FORMATS)


def descriptions() -> str:
    """Return what one line of each format is, as a sentence for help texts."""
    return "; ".join(f"{name}: {FORMATS[name].line}" for name in names()) + "."


def split_default() -> str:
    """Return which split each format exports by default, as a sentence for help texts."""
    special = [f"{FORMATS[name].default_split} for {name}" for name in names() if FORMATS[name].default_split]
    return f"Default: {', '.join([*special, 'all for the other formats'])}."


def markdown_table() -> str:
    """Return the table of `docs/data-and-api.md`."""
    rows = [f"| `{name}` | {FORMATS[name].line} | {FORMATS[name].default_split or 'all'} |" for name in names()]
    return "\n".join(["| `format` | one line is | split by default |", "|---|---|---|", *rows])
