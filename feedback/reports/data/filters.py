"""The filters of the lists, checked against the project."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import F, Q, QuerySet
from django.utils.translation import gettext as _

from feedback.errors import Invalid
from feedback.models import Project, Source, User
from feedback.models.search import Matches, SearchVector, StoredVector

MAX_SEARCH_LENGTH = 500  # characters


@dataclass(frozen=True)
class Filters:
    """Conditions on the rows of a list. `DataList.filters` names those that a list has; it ignores the others."""

    search: str = ""  # words, "a phrase", or, -not
    split: str = ""
    external_id: str = ""
    source: str = ""  # name
    annotator: str = ""  # username
    flag: str = ""
    state: str = ""
    has_comment: bool = False
    has_reason: bool = False
    since: datetime | None = None
    until: datetime | None = None  # not included


def within(rows: QuerySet[Any], filters: Filters) -> QuerySet[Any]:
    """Return the rows that were made in the period of the filters."""
    if filters.since is not None:
        rows = rows.filter(created_at__gte=filters.since)
    return rows.filter(created_at__lt=filters.until) if filters.until is not None else rows


def matching(rows: QuerySet[Any], stored: str, typed: str) -> QuerySet[Any]:
    """Return the rows whose prompt or completion has the words. `stored`: path of its text, or of its messages."""
    return rows.filter(Matches(StoredVector(F(stored)), typed)) if typed.strip() else rows


def matching_short(rows: QuerySet[Any], field: str, typed: str) -> QuerySet[Any]:
    """Return the rows with the words in a field that has an index of the rows where it is not empty."""
    return rows.filter(~Q(**{field: ""}), Matches(SearchVector(field), typed)) if typed.strip() else rows


def user_of(project: Project, username: str) -> User:
    """Return the person with this name who is or was an annotator of the project. Raises Invalid."""
    user = User.objects.filter(username=username).first()
    if user is None or not (
        project.memberships.filter(user=user).exists() or project.rankings.filter(annotator=user).exists()
    ):
        raise Invalid(_('Nobody with the name "%(name)s" ranks in this project.') % {"name": username})
    return user


def source_of(project: Project, name: str) -> Source:
    """Return the project's source with this name. Raises Invalid."""
    source = Source.objects.filter(project=project, name=name).first()
    if source is None:
        raise Invalid(_('This project has no source "%(name)s".') % {"name": name})
    return source
