"""Files that managers upload: stored, looked at, and imported in steps by the worker of the queue `default`.

An import is `draft` while its first rows are looked at, then `waiting`. The worker, which runs one task at a time,
takes it for a few seconds, stores whole batches, and comes back for the rest. An advisory lock that lives as long as
the connection keeps two workers from running one import. What was stored stays if the import is stopped.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from time import monotonic
from typing import Any
from uuid import uuid4

from django.conf import settings
from django.db import connection, transaction
from django.db.models import F
from django.utils import timezone
from django.utils.translation import gettext as _

from feedback import audit, validation
from feedback.errors import Conflict, Invalid, TooLarge
from feedback.imports.batches import Target
from feedback.imports.files import RowFile
from feedback.imports.loading import Report, load
from feedback.imports.maps import recognition
from feedback.imports.maps.description import Map, as_values, read_map
from feedback.imports.stream import first_rows
from feedback.models import Import, Project, User

RUN_CLASS = 0x1319  # any constant: keeps these locks apart from others of the same database
STEP_SECONDS = 4.0  # of one task; the schedule starts one every 5 seconds
SMALL = 128 * 1024  # bytes: a smaller file is imported while its manager waits
KEPT_DRAFTS = timedelta(days=7)


class _Stopped(Exception):
    """The import was stopped while a batch was stored."""


def folder() -> Path:
    return Path(settings.DATA_DIR) / "uploads"


def add_upload(
    project: Project,
    file_name: str,
    chunks: Iterable[bytes],
    *,
    how: str,
    actor: User | None,
    made: Map | None = None,
    must_fit: bool = False,
) -> Import:
    """Store a file and return its draft, with the map that its first rows fit unless `made` is one.

    must_fit: raise Invalid if no map fits; else the draft then has none. Raises Invalid if the file cannot be read.
    """
    folder().mkdir(parents=True, exist_ok=True)
    stored_as = uuid4().hex
    path = folder() / stored_as
    try:
        _write(path, chunks)
        rows = RowFile(path, file_name)
        recognise = recognition.must_recognise if must_fit else recognition.recognise
        known = made or recognise(first_rows(rows))
        values = as_values(known) if known else {}
        with transaction.atomic():
            record = Import.objects.create(
                project=project,
                how=how,
                actor=actor,
                state=Import.State.DRAFT,
                file_name=file_name[:200],
                stored_as=stored_as,
                map=values,
            )
            _audit("import.upload", record, after={"file": record.file_name})
        return record
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def file_of(record: Import) -> RowFile:
    """Return the stored file. Raises Conflict if it is not there any more."""
    try:
        return RowFile(folder() / record.stored_as, record.file_name)
    except OSError:
        raise Conflict(_("The uploaded file is not here any more: upload it again.")) from None


def map_of(record: Import) -> Map | None:
    return read_map(record.map) if record.map else None


@transaction.atomic
def choose_map(record: Import, made: Map) -> None:
    """Read a draft through another map."""
    if not Import.objects.filter(pk=record.pk, state=Import.State.DRAFT).update(map=as_values(made)):
        raise Conflict(_("This import has started already."))
    _audit("import.map", record, before={"map": record.map}, after={"map": as_values(made)})


def start(record: Import, **options: Any) -> Import:
    """Start a draft: a small file is imported now, another one by the worker. `options` are those of `Target`.

    `strict`, another option, imports nothing if a row is refused; such a file must be small. `stop_at_error` ends the
    import at the first such row.
    """
    if not record.map:
        raise Invalid(_("Choose a map first: the format was not recognised."))
    size = file_of(record).size
    if options.get("strict") and size > SMALL:
        raise TooLarge(_("Only a file of at most %(most)s KiB can be imported as a whole.") % {"most": SMALL // 1024})
    with transaction.atomic():
        waiting = Import.objects.filter(pk=record.pk, state=Import.State.DRAFT)
        if not waiting.update(state=Import.State.WAITING, options=options):
            raise Conflict(_("This import has started already."))
        _audit("import.start", record, after={"file": record.file_name, **options})
    if size <= SMALL:
        run(record.pk)
    record.refresh_from_db()
    return record


def stop(record: Import) -> None:
    """Delete a draft, or stop an import that waits or runs. What it has stored stays until it is undone."""
    with transaction.atomic():
        record = Import.objects.select_for_update(of=("self",)).get(pk=record.pk)
        _audit("import.stop", record, before={"state": record.state})
        if record.state == Import.State.DRAFT:
            record.delete()
        elif record.state in (Import.State.WAITING, Import.State.RUNNING):
            _end(record, str(Import.State.FAILED), _("It was stopped."))
        else:
            raise Conflict(_("This import has ended already."))
    _delete_file(record)


def _audit(act: str, record: Import, before: dict[str, Any] | None = None, after: dict[str, Any] | None = None) -> None:
    audit.record(act, record.project, record, before=before, after=after)


def run_waiting() -> bool:
    """Go on with one import for a few seconds, with each in turn; return whether there is more to do."""
    Import.objects.filter(state=Import.State.DRAFT, created_at__lt=timezone.now() - KEPT_DRAFTS).delete()
    _delete_unused_files()
    waiting = Import.objects.filter(state__in=[Import.State.WAITING, Import.State.RUNNING]).order_by(
        F("heartbeat_at").asc(nulls_first=True), "pk"
    )
    oldest = waiting.values_list("pk", flat=True).first()
    return oldest is not None and run(oldest, seconds=STEP_SECONDS)


def run(import_id: int, seconds: float | None = None) -> bool:
    """Import a waiting file, or go on with it, for about so many seconds. Return whether there is more to do."""
    with _only_here(import_id) as is_mine:
        mine = Import.objects.filter(pk=import_id, state__in=[Import.State.WAITING, Import.State.RUNNING])
        if not is_mine or not mine.update(state=Import.State.RUNNING):
            return False
        record = Import.objects.select_related("project").get(pk=import_id)
        try:
            report = _load(record, seconds)
        except _Stopped:
            return False
        except (Invalid, Conflict) as error:
            errors = error.details.get("errors", [])
            record.report = record.report or {"errors": errors, "error_count": len(errors)}
            _end(record, str(Import.State.FAILED), error.message)
        else:
            if report.stopped:
                _end(record, str(Import.State.FAILED), report.stopped)
            elif not report.is_complete:
                return True
            else:
                _end(record, str(Import.State.FINISHED))
        _delete_file(record)
        return False


def _load(record: Import, seconds: float | None) -> Report:
    made = map_of(record)
    assert made is not None
    options = dict(record.options)
    strict, stop_at_error = options.pop("strict", False), options.pop("stop_at_error", False)
    until = None if seconds is None else monotonic() + seconds

    def before_commit(done: float) -> None:
        still_runs = Import.objects.filter(pk=record.pk, state=Import.State.RUNNING)
        if not still_runs.update(done=done):
            raise _Stopped

    return load(
        file_of(record),
        Target(record.project, record, made, **options),
        strict=strict,
        stop_at_error=stop_at_error,
        before_commit=before_commit,
        is_over=lambda: until is not None and monotonic() > until,
    )


def _end(record: Import, state: str, why: str = "") -> None:
    is_complete = state == Import.State.FINISHED
    report = asdict(Report()) | record.report | {"stopped": validation.storable(why), "is_complete": is_complete}
    values = {"state": state, "report": report, "counts": record.counts} | ({"done": 1.0} if is_complete else {})
    Import.objects.filter(pk=record.pk).update(**values)


@contextmanager
def _only_here(import_id: int) -> Iterator[bool]:
    """Give the block whether no other connection runs this import, and keep it so during the block."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(%s, %s)", [RUN_CLASS, import_id])
        (is_mine,) = cursor.fetchone()
    try:
        yield is_mine
    finally:
        if is_mine:
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_unlock(%s, %s)", [RUN_CLASS, import_id])


def _write(path: Path, chunks: Iterable[bytes]) -> None:
    most, size = settings.MAX_IMPORT_FILE_SIZE, 0
    with path.open("wb") as file:
        for chunk in chunks:
            size += len(chunk)
            if size > most:
                message = _("The upload has more than %(most)s MiB: send the rows in several parts.")
                raise TooLarge(message % {"most": most // 2**20})
            file.write(chunk)


def _delete_file(record: Import) -> None:
    (folder() / record.stored_as).unlink(missing_ok=True)


def _delete_unused_files() -> None:
    """Delete the files of drafts that are gone, such as with their project."""
    if not folder().exists():
        return
    old = (timezone.now() - KEPT_DRAFTS).timestamp()
    for path in folder().iterdir():
        with suppress(FileNotFoundError):
            if (
                path.stat().st_mtime < old
                and not Import.objects.filter(
                    stored_as=path.name, state__in=[Import.State.DRAFT, Import.State.WAITING, Import.State.RUNNING]
                ).exists()
            ):
                path.unlink()
