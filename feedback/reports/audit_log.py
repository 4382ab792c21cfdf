"""Reads of the audit log for its pages and the API."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.core.exceptions import FieldDoesNotExist
from django.db.models import Q, QuerySet
from django.utils.text import Truncator, capfirst

from feedback.models import AuditEntry, Project
from feedback.reports.data.pages import NEWEST, ROWS_PER_PAGE, Searched, ids_after, page_of, read_cursor

MAX_SHOWN = 120  # characters of a value on the page


@dataclass(frozen=True)
class AuditFilters:
    """Conditions on the entries; "" and None: no condition."""

    act: str = ""  # an act such as round.start, or all acts on such things: round
    actor: str = ""  # name
    object_type: str = ""
    object_id: str = ""
    since: datetime | None = None
    until: datetime | None = None  # not included


@dataclass(frozen=True)
class AuditPage:
    """Entries, newest first, and the cursor of the next page; "": this is the last."""

    entries: Sequence[AuditEntry]
    next: str


@dataclass(frozen=True)
class Change:
    """A value of the object, as text; None where there was or is none."""

    name: str
    before: str | None
    after: str | None


def read(project: Project | None, filters: AuditFilters, *, cursor: str = "", size: int = ROWS_PER_PAGE) -> AuditPage:
    """Return a page of the project's entries, or of all entries. Raises Invalid for a damaged cursor."""
    keys = ids_after(Searched(_matching(project, filters)), NEWEST, read_cursor(cursor, "newest"), size + 1)
    page = page_of(keys, "newest", size)
    entries = AuditEntry.objects.in_bulk(page.ids)
    return AuditPage([entries[pk] for pk in page.ids], page.next)


def _matching(project: Project | None, filters: AuditFilters) -> QuerySet[AuditEntry]:
    rows = AuditEntry.objects.all() if project is None else AuditEntry.objects.filter(project=project)
    if filters.act:
        rows = rows.filter(Q(act=filters.act) | Q(act__startswith=f"{filters.act}."))
    names = {"actor_name": filters.actor, "object_type": filters.object_type, "object_id": filters.object_id}
    rows = rows.filter(**{name: value for name, value in names.items() if value})
    if filters.since is not None:
        rows = rows.filter(created_at__gte=filters.since)
    return rows if filters.until is None else rows.filter(created_at__lt=filters.until)


def actors(project: Project | None) -> list[str]:
    """Return the names of all who have acted."""
    rows = _matching(project, AuditFilters()).order_by("actor_name")
    return list(rows.values_list("actor_name", flat=True).distinct())


def changes_of(entry: AuditEntry) -> list[Change]:
    """Return the values of an entry that its act changed, under the names of the settings page."""
    names = dict.fromkeys([*entry.before, *entry.after])
    return [Change(_label(entry, name), _text(entry.before, name), _text(entry.after, name)) for name in names]


def _label(entry: AuditEntry, name: str) -> str:
    if entry.object_type == "project":
        try:
            return str(capfirst(Project._meta.get_field(name).verbose_name))
        except FieldDoesNotExist:
            pass
    return capfirst(name.replace("_", " "))


def _text(values: dict[str, Any], name: str) -> str | None:
    if name not in values:
        return None
    value = values[name]
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return Truncator(text).chars(MAX_SHOWN) if text else "–"
