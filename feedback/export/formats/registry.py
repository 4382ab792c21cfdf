"""Registry of export formats: `@export_format(...)` adds one, and every list of formats is derived from it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from django.utils import translation
from django.utils.functional import Promise

from feedback.export.ranking_record import Row
from feedback.export.reader import Reader
from feedback.export.schema import Schema, is_flat

# (rankings with details, in the order of the record; the reader) to lines
Convert = Callable[[Iterator[Row], Reader], Iterator[Row]]
# What a format can do with ties, its default first.
WHOLE: tuple[str, ...] = ("rows", "omitted")
PAIRS: tuple[str, ...] = ("omitted", "rows")  # as rows: both orders of a tied pair, with half the weight each
OMITTED: tuple[str, ...] = ("omitted",)  # it cannot express a tie
# Python code that reads a file with the format's lines; "{file}" stands for its name.
LOAD_DATASET = """from datasets import load_dataset

rows = load_dataset("json", data_files="{file}", split="train")"""


def one_line(ranks: Sequence[int]) -> int:
    return 1


@dataclass(frozen=True)
class ExportFormat:
    """A way to write rankings as lines of JSON."""

    name: str
    line: str | Promise  # what one line is: a noun phrase for pages, help texts and the documentation
    convert: Convert
    default_split: str | None  # the split that is exported unless another is chosen; None: all
    reading: str  # Python code for the page
    lines: Callable[[Sequence[int]], int]  # how many lines a ranking with these ranks gives
    ties: tuple[str, ...]  # WHOLE, PAIRS or OMITTED
    schema: Schema | None  # None: values of no fixed type, JSON Lines only
    has_cursor: bool  # whether it can be read by cursor; other tools' formats may have no place for retractions

    @property
    def kinds(self) -> tuple[str, ...]:
        """Return the kinds of files that it can be written as, see `files.KINDS`."""
        if self.schema is None:
            return ("jsonl",)
        return ("jsonl", "csv", "parquet") if is_flat(self.schema) else ("jsonl", "parquet")

    @property
    def english_line(self) -> str:
        with translation.override(None):
            return str(self.line)


FORMATS: dict[str, ExportFormat] = {}


def export_format(
    name: str,
    *,
    line: str | Promise,
    default_split: str | None = None,
    reading: str = LOAD_DATASET,
    lines: Callable[[Sequence[int]], int] = one_line,
    ties: tuple[str, ...] = WHOLE,
    schema: Schema | None = None,
    has_cursor: bool = True,
) -> Callable[[Convert], Convert]:
    """Register a function as an export format.

    name: value of `format` in the API and of `--format`. line: what one line is. default_split: set it where trainers
    read every line of the file, so that nothing is trained on held-out prompts by accident. reading: Python code that
    reads a file, where `load_dataset` is not the way. lines: how many lines a ranking with these ranks gives, where
    it is not one; the page counts with it. ties: what it can do with ties, its default first. schema: types
    of all columns in their order, without `retracted`, for files with fixed types. has_cursor: False if the format has
    no place for rows with `retracted`; it can then be read from the beginning only.

    The function gets the rows of `ranking_record.rankings(..., details=True)` and the reader, and yields the lines.
    With a cursor, rows with `retracted` must be passed on: readers depend on them.
    """

    def register(function: Convert) -> Convert:
        FORMATS[name] = ExportFormat(name, line, function, default_split, reading, lines, ties, schema, has_cursor)
        return function

    return register


def names() -> list[str]:
    return sorted(FORMATS)


def descriptions() -> str:
    """Return the description of a line of each format, as a sentence for help texts."""
    return "; ".join(f"{name}: {FORMATS[name].english_line}" for name in names()) + "."


def split_default() -> str:
    """Return the default split of each format, as a sentence for help texts."""
    by_split: dict[str, list[str]] = {}
    for name in names():
        if split := FORMATS[name].default_split:
            by_split.setdefault(split, []).append(name)
    special = [f"{split} for {', '.join(of_split)}" for split, of_split in by_split.items()]
    return f"Default: {'; '.join([*special, 'all for the other formats'])}."


def markdown_table() -> str:
    """Return the table of `docs/data-and-api.md`."""
    rows = [f"| `{name}` | {FORMATS[name].english_line} | {FORMATS[name].default_split or 'all'} |" for name in names()]
    return "\n".join(["| `format` | one line is | split by default |", "|---|---|---|", *rows])
