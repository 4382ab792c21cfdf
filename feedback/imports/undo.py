"""Record the rows of an import, and undo the import as a whole.

Imports and undo exclude each other by an advisory lock per project: an import holds it shared, undo exclusively.
Without it, an import could use a prompt or completion that an undo is deleting, and fail when it commits.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from django.db import connection, transaction
from django.db.models import Exists, OuterRef, QuerySet
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from feedback import audit
from feedback.archive import Archived
from feedback.errors import Conflict, NotFound
from feedback.imports import rankings_undo
from feedback.models import (
    Comparison,
    ComparisonItem,
    Completion,
    Demonstration,
    Import,
    Project,
    Prompt,
    User,
)
from feedback.queue.worked_on import reasons_to_keep

LOCK_CLASS = 0x1317  # any constant: keeps these locks apart from others of the same database
# Columns whose rows are deleted for each kind, dependent tables first.
DELETED_COLUMNS = {
    "comparisons": ("feedback_comparisonitem.comparison_id", "feedback_comparison.id"),
    "completions": ("feedback_completion.id",),
    "prompts": ("feedback_externalid.prompt_id", "feedback_prompt.id"),
}


@contextmanager
def record_import(project: Project, how: str, actor: User | None = None) -> Iterator[Import]:
    """Run the block in one transaction and give it the `Import` to pass as `made_by_import`.

    An import that changes nothing is deleted: its `pk` is None afterwards.
    """
    with transaction.atomic():
        record = Import.objects.create(project=project, how=how, actor=actor)
        yield record
        update_counts(record)
        if any(record.counts.values()):
            record.save(update_fields=["counts"])
            audit.record("import.add", project, record, after=record.counts, actor=actor)
        else:
            record.delete()


def update_counts(record: Import) -> None:
    """Set `record.counts` to the numbers of rows that the import made."""
    made = {name: rows.count() for name, rows in _made_by(record).items()}
    made["demonstrations"] = Demonstration.objects.filter(made_by_import=record).count()
    record.counts = {"completed": 0} | record.counts | made


def find_import(project: Project, import_id: int) -> Import:
    """Return the project's import with this id. Raises NotFound."""
    record = Import.objects.filter(project=project, pk=import_id).first()
    if record is None:
        raise NotFound(_("There is no import %(id)s in this project.") % {"id": import_id})
    return record


def imports_of(project: Project) -> QuerySet[Import]:
    """Return the project's imports, the newest first."""
    return Import.objects.filter(project=project).select_related("actor", "undone_by").order_by("-pk")


def last_imports(project: Project, limit: int) -> QuerySet[Import]:
    return imports_of(project)[:limit]


def block_undo(project: Project) -> None:
    """Make every undo in the project wait until the current transaction ends. Imports do not wait for each other."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock_shared(%s, %s)", [LOCK_CLASS, project.pk])


@dataclass(frozen=True)
class Kept:
    """Rows of an undone import that stay, and the reason."""

    kind: str  # comparisons, completions or prompts
    reason: str
    count: int
    message: str


@dataclass(frozen=True)
class Undone:
    """Numbers of removed rows by kind, and the rows that stay."""

    removed: dict[str, int]
    stayed: list[Kept]


@transaction.atomic
def undo_import(record: Import, actor: User | None) -> Undone:
    """Remove the rows that the import made, except those that somebody has worked on or that are in use.

    1. Its rankings and skips. Rankings that an export or a round may have read are withdrawn by a new revision, so that
       readers by cursor learn of it, and their comparisons stay. Those that a reviewer has decided about stay.
    2. Its comparisons that nobody has ranked, skipped or leased (a ranking may still come for a lapsed lease).
    3. Its demonstrations that no reviewer has decided about, and its completions that no comparison uses now, nor a
       demonstration.
    4. Its prompts that have no completion now.

    Raises Conflict if the import is undone already, Archived if the project is archived.
    """
    # The project comes first, as it does for trials. Its lock keeps readers from numbering rankings meanwhile.
    Project.objects.select_for_update(no_key=True).get(pk=record.project_id)
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s, %s)", [LOCK_CLASS, record.project_id])
        # The commit looks up each deleted row in every table that may refer to it. PostgreSQL would plan some of these
        # look-ups again for each row, which takes five times as long as the look-up.
        cursor.execute("SET LOCAL plan_cache_mode = force_generic_plan")
    record = Import.objects.select_for_update(of=("self",)).select_related("project").get(pk=record.pk)
    if record.project.archived_at is not None:
        raise Archived(_("This project is archived: its imports cannot be undone."))
    if record.undone_at is not None:
        raise Conflict(_("This import was undone before."))
    if record.state in (Import.State.WAITING, Import.State.RUNNING):
        raise Conflict(_("This import is running: stop it first, or wait for its end."))
    made = _made_by(record)
    removed: dict[str, int] = {}
    reasons: Counter[tuple[str, str]] = Counter()
    if record.counts.get("rankings") or record.counts.get("skips"):
        taken_back = rankings_undo.take_back(record)
        removed |= taken_back.removed
        reasons.update({("rankings", reason): count for reason, count in taken_back.stayed.items() if count})
    Demonstration.objects.filter(made_by_import=record, discards__isnull=True).delete()
    for kind, reasons_to_stay in (
        ("comparisons", reasons_to_keep),
        ("completions", _completions),
        ("prompts", _prompts),
    ):
        rows = list(reasons_to_stay(made[kind]))
        # Completions that a round has written again since then belong to the import no longer.
        shared = record.counts.get(kind, 0) - len(rows) if kind == "completions" else 0
        reasons += Counter({(kind, "shared"): max(0, shared)})
        reasons.update((kind, reason) for pk, reason in rows if reason)
        ids = [pk for pk, reason in rows if not reason]
        delete_rows(kind, ids)
        removed[kind] = len(ids)
    reasons += Counter({("prompts", "completed"): record.counts.get("completed", 0)})
    record.undone_at, record.undone_by = timezone.now(), actor
    record.save(update_fields=["undone_at", "undone_by"])
    values = {"removed": removed}
    audit.record("import.undo", record.project, record, after=values, actor=actor)
    return Undone(removed, [Kept(kind, why, n, _sentence(kind, why, n)) for (kind, why), n in reasons.items()])


ReasonsToStay = Iterable[tuple[int, str]]  # id, and the reason why the row stays ("": it can be deleted)


def _completions(made: QuerySet[Completion]) -> ReasonsToStay:
    used = Exists(ComparisonItem.objects.filter(completion=OuterRef("pk")))
    imitated = Exists(Demonstration.objects.filter(completion=OuterRef("pk")))
    for pk, is_used in made.annotate(is_used=used | imitated).values_list("pk", "is_used"):
        yield pk, "used" if is_used else ""


def _prompts(made: QuerySet[Prompt]) -> ReasonsToStay:
    answered = Exists(Completion.objects.filter(prompt=OuterRef("pk")))
    for pk, is_answered in made.annotate(is_answered=answered).values_list("pk", "is_answered"):
        yield pk, "answered" if is_answered else ""


def _made_by(record: Import) -> dict[str, QuerySet]:
    return {
        "prompts": Prompt.objects.filter(made_by_import=record),
        "completions": Completion.objects.filter(made_by_import=record),
        "comparisons": Comparison.objects.filter(made_by_import=record),
    }


def delete_rows(kind: str, ids: list[int]) -> None:
    """Delete rows and their parts. Django's `delete` would first load every row that refers to them."""
    with connection.cursor() as cursor:
        for column in DELETED_COLUMNS[kind]:
            table, name = column.split(".")
            cursor.execute(f"DELETE FROM {table} WHERE {name} = ANY(%s)", [ids])


def _sentence(kind: str, reason: str, n: int) -> str:
    sentences = {
        ("rankings", "read"): ngettext(
            "%(n)s ranking is withdrawn, and its comparison stays: an export or a round may have read it.",
            "%(n)s rankings are withdrawn, and their comparisons stay: an export or a round may have read them.",
            n,
        ),
        ("rankings", "reviewed"): ngettext(
            "%(n)s ranking stays: a reviewer has decided about it.",
            "%(n)s rankings stay: reviewers have decided about them.",
            n,
        ),
        ("comparisons", "ranked"): ngettext(
            "%(n)s comparison stays: it was ranked.", "%(n)s comparisons stay: they were ranked.", n
        ),
        ("comparisons", "skipped"): ngettext(
            "%(n)s comparison stays: it was skipped.", "%(n)s comparisons stay: they were skipped.", n
        ),
        ("comparisons", "answered"): ngettext(
            "%(n)s comparison stays: somebody has written an answer to it.",
            "%(n)s comparisons stay: people have written answers to them.",
            n,
        ),
        ("comparisons", "held"): ngettext(
            "%(n)s comparison stays: an annotator has it on a page.",
            "%(n)s comparisons stay: annotators have them on their pages.",
            n,
        ),
        ("completions", "used"): ngettext(
            "%(n)s completion stays: a comparison shows it.", "%(n)s completions stay: comparisons show them.", n
        ),
        ("completions", "shared"): ngettext(
            "%(n)s completion stays: a round has written it, too.",
            "%(n)s completions stay: rounds have written them, too.",
            n,
        ),
        ("prompts", "answered"): ngettext(
            "%(n)s prompt stays: it has completions.", "%(n)s prompts stay: they have completions.", n
        ),
        ("prompts", "completed"): ngettext(
            "%(n)s prompt that was known before keeps what the import added to it.",
            "%(n)s prompts that were known before keep what the import added to them.",
            n,
        ),
    }
    return sentences[kind, reason] % {"n": n}
