"""A file through a map: a stream of mapped rows, and the errors by line."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from django.utils.translation import gettext as _

from feedback import validation
from feedback.errors import Invalid
from feedback.imports.files import NumberedRow, RowFile
from feedback.imports.lines import UnreadableLine
from feedback.imports.maps import readers, recognition
from feedback.imports.maps.description import Map
from feedback.imports.maps.draft import MappedRow
from feedback.imports.maps.mapping import group_rows, map_row
from feedback.imports.maps.values import FieldError
from feedback.imports.rows import read_prompt

RECOGNISED_BY = 20  # first rows


@dataclass(frozen=True)
class RowError:
    """A row that was not imported. The texts can be stored: a value may hold what was refused."""

    line: int
    field: str
    value: str
    reason: str

    def __post_init__(self) -> None:
        for name in ("field", "value", "reason"):
            object.__setattr__(self, name, validation.storable(getattr(self, name)))


@dataclass
class Unit:
    """Rows of a file that are written together: the lines, and what they hold. One line may hold several rows."""

    lines: list[int]
    rows: list[MappedRow] = field(default_factory=list)
    error: RowError | None = None


def first_rows(file: RowFile, count: int = RECOGNISED_BY) -> list[Any]:
    """Return the first rows that can be read."""
    rows = (row for _line, row in islice(file.rows(), count))
    return [row for row in rows if not isinstance(row, UnreadableLine)]


def units(file: RowFile, made: Map, skip: int = 0) -> Iterator[Unit]:
    """Yield the rows of a file, mapped, after the first `skip` of them. Rows that cannot be used have an error."""
    numbered = file.rows(skip)
    if made.rules.group:
        for lines, mapped in group_rows(_plain_rows(numbered), made):
            is_error = isinstance(mapped, Invalid)
            yield Unit(lines, error=error_of(lines[0], mapped)) if is_error else Unit(lines, [mapped])  # type: ignore[arg-type, list-item]
        return
    for line, row in numbered:
        yield _unit(line, row, made)


def _plain_rows(numbered: Iterator[NumberedRow]) -> Iterator[tuple[list[int], Mapping[str, Any] | Invalid]]:
    for line, row in numbered:
        try:
            yield [line], _object(row)
        except Invalid as error:
            yield [line], error


def _unit(line: int, row: object, made: Map) -> Unit:
    try:
        if made.native:
            if isinstance(row, UnreadableLine):
                raise Invalid(row.message)
            return Unit([line], [MappedRow(read_prompt(row), None)])
        return Unit([line], _mapped(row, made))
    except Invalid as error:
        if isinstance(error, FieldError) and (advice := recognition.advice(row, made)):
            error = FieldError(f"{error.message} {advice}", error.field, error.value)
        return Unit([line], error=error_of(line, error))


def _mapped(row: object, made: Map) -> list[MappedRow]:
    if isinstance(row, UnreadableLine) or not made.reader:
        return [map_row(_object(row), made)]
    if not isinstance(row, dict | list):
        raise FieldError(_("The row is not an object with named columns."), "", row)
    try:
        flat_rows = list(readers.flat_rows(made.reader, row, made.rules))
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        # Readers take the form of a published format for granted, which a damaged row does not have.
        raise FieldError(
            _("The row does not have the form of %(format)s.") % {"format": made.title}, "", row
        ) from error
    return [map_row(flat, made) for flat in flat_rows]


def _object(row: object) -> Mapping[str, Any]:
    if isinstance(row, UnreadableLine):
        raise Invalid(row.message)
    if not isinstance(row, Mapping):
        raise FieldError(_("The row is not an object with named columns."), "", row)
    return row


def error_of(line: int, error: Invalid) -> RowError:
    if isinstance(error, FieldError):
        return RowError(line, error.field, error.value, error.message)
    return RowError(line, "", "", error.message)


def unused_columns(rows: Sequence[object], made: Map) -> list[str]:
    """Return the columns of the first rows that the map does not read."""
    if made.native or made.reader:
        return []
    used = {part.split(".")[0] for part in _paths(made)}
    counts = Counter(name for row in rows if isinstance(row, Mapping) for name in row)
    return [name for name in counts if name not in used and name not in _paths(made)]


def _paths(made: Map) -> set[str]:
    paths: set[str] = set()
    for part in (made.prompt, made.completions, made.judgement, made.who):
        for value in vars(part).values():
            if isinstance(value, str):
                paths.add(value)
            elif isinstance(value, tuple):
                paths.update(item for item in value if isinstance(item, str))
            elif isinstance(value, dict):
                paths.update(item for item in value.values() if isinstance(item, str))
                paths.update(value)
    return paths - {""}
