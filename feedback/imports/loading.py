"""Import of a file through a map: batch by batch at constant memory, with a report of every row that was left out."""

import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from contextvars import copy_context
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any

from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from feedback.errors import Invalid
from feedback.imports.batches import Outcome, Target, write_batch
from feedback.imports.files import RowFile
from feedback.imports.maps.description import Map
from feedback.imports.stream import RowError, Unit, units
from feedback.models import Import

BATCH_SIZE = 4000  # rows
BATCH_CHARACTERS = 4_000_000  # of texts: two batches are in memory
COUNTED = ("prompts", "completions", "comparisons", "demonstrations", "rankings", "skips", "gold", "completed")
FORMULAS = ("=", "+", "-", "@", "\t", "\r")  # beginnings of formulas in spreadsheets
MAX_REPORTED = 1000  # errors that a report lists; all are counted


@dataclass
class Report:
    """Results of a file's rows so far."""

    rows: int = 0
    imported: int = 0  # rows that added something
    unchanged: int = 0  # rows whose data was there already
    error_count: int = 0
    errors: list[dict[str, Any]] = field(default_factory=list)  # the first MAX_REPORTED
    left_out: dict[str, int] = field(default_factory=dict)  # what the product cannot hold, such as strengths
    is_complete: bool = False
    stopped: str = ""  # why it ended early

    def add(self, batch: Sequence[Unit], outcome: Outcome) -> None:
        self.rows += sum(len(unit.lines) for unit in batch)
        self.imported += outcome.imported
        self.unchanged += outcome.unchanged
        self.error_count += len(outcome.errors)
        room = MAX_REPORTED - len(self.errors)
        in_order = sorted(outcome.errors, key=lambda error: error.line)
        self.errors += [asdict(error) for error in in_order[:room]]
        self.left_out = dict(Counter(self.left_out) + outcome.left_out)


def load(
    file: RowFile,
    target: Target,
    *,
    strict: bool = False,
    stop_at_error: bool = False,
    before_commit: Callable[[float], None] | None = None,
    is_over: Callable[[], bool] = lambda: False,
) -> Report:
    """Import a file, one transaction a batch; with `strict` all rows in one, or none. Return the report.

    The report is stored with the import after each batch, and a later call for the same import goes on from there.
    stop_at_error: store what comes before the first row that cannot be imported, and end with `stopped`.
    before_commit: gets the share of the file that was read, at the end of each batch in its transaction. is_over: asked
    after each batch; true stops here, and the report is not `is_complete`. Raises Invalid if the file cannot be read
    on, and with `strict` for the first row that cannot be imported.
    """
    report = Report(**target.record.report)
    report.is_complete = False
    with transaction.atomic() if strict else nullcontext():
        for batch in _read_ahead(_batches(units(file, target.map, skip=report.rows))):
            with transaction.atomic():
                outcome = write_batch(target, batch) if not stop_at_error else _write_until_error(target, batch, report)
                if strict and outcome.errors:
                    raise _refusal(min(outcome.errors, key=lambda error: error.line))
                report.add(batch, outcome)
                _store(target.record, report, outcome)
                if before_commit is not None:
                    before_commit(file.done())
            if report.stopped or (not strict and is_over()):
                return report
    if not report.rows:
        raise Invalid(_("The file has no rows."))
    report.is_complete = True
    return report


def errors_as_lines(record: Import) -> str:
    """Return the listed errors of an import as JSON Lines."""
    return "".join(json.dumps(error, ensure_ascii=False) + "\n" for error in record.report.get("errors", []))


def errors_as_csv(record: Import) -> str:
    """Return the listed errors of an import as CSV. No cell begins like a formula, which a spreadsheet would run."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, ["line", "field", "value", "reason"])
    writer.writeheader()
    for error in record.report.get("errors", []):
        writer.writerow({name: f"'{cell}" if str(cell)[:1] in FORMULAS else cell for name, cell in error.items()})
    return stream.getvalue()


def preview(file: RowFile, made: Map, count: int = 5) -> list[Unit]:
    """Return the first units of a file as a map reads them. Nothing is stored."""
    return list(islice(units(file, made), count))


class _BadRow(Exception):
    """A row of a batch cannot be imported."""

    def __init__(self, error: RowError) -> None:
        self.error = error


def _write_until_error(target: Target, batch: list[Unit], report: Report) -> Outcome:
    """Store the rows before the first one that cannot be imported; cut the batch after that row."""
    counts = dict(target.record.counts)
    try:
        with transaction.atomic():
            outcome = write_batch(target, batch)
            if outcome.errors:
                raise _BadRow(min(outcome.errors, key=lambda error: error.line))
            return outcome
    except _BadRow as bad:
        error = bad.error
    target.record.counts = counts  # the batch was taken back
    place = next(index for index, unit in enumerate(batch) if error.line in unit.lines)
    outcome = write_batch(target, batch[:place])
    outcome.errors.append(error)
    del batch[place + 1 :]
    report.stopped = _("It stopped at line %(line)s, as you asked: %(reason)s") % vars(error)
    return outcome


def _batches(stream: Iterator[Unit]) -> Iterator[list[Unit]]:
    for first in stream:
        batch = [first]
        rows, characters = len(first.lines), _characters(first)
        while rows < BATCH_SIZE and characters < BATCH_CHARACTERS and (unit := next(stream, None)) is not None:
            batch.append(unit)
            rows += max(len(unit.lines), len(unit.rows))
            characters += _characters(unit)
        yield batch


def _characters(unit: Unit) -> int:
    return sum(
        sum(len(message["content"]) for message in row.prompt.messages)
        + sum(len(completion.text) for completion in row.prompt.completions)
        for row in unit.rows
    )


def _read_ahead(batches: Iterator[list[Unit]]) -> Iterator[list[Unit]]:
    """Yield batches; read the next one in a thread while the database stores this one."""
    with ThreadPoolExecutor(1) as reader:
        context = copy_context()  # errors are sentences in the language of the caller

        def read() -> list[Unit] | None:
            return next(batches, None)

        following = reader.submit(context.run, read)
        while (batch := following.result()) is not None:
            following = reader.submit(context.run, read)
            yield batch


def _store(record: Import, report: Report, outcome: Outcome) -> None:
    record.report = asdict(report)
    record.counts = {name: record.counts.get(name, 0) + outcome.counts[name] for name in COUNTED}
    record.heartbeat_at = timezone.now()
    record.save(update_fields=["report", "counts", "heartbeat_at"])


def _refusal(error: RowError) -> Invalid:
    return Invalid(
        _("Line %(line)s: %(message)s%(more)s") % {"line": error.line, "message": error.reason, "more": ""},
        errors=[asdict(error) | {"message": error.reason}],
    )
