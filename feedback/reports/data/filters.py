"""The filters of the lists, checked against the project."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import F, Q, QuerySet
from django.utils.translation import gettext as _

from feedback.errors import Invalid
from feedback.models import Project, Source, User
from feedback.models.search import IsOneOf, Matches, SearchVector, StoredVector
from feedback.reports.data.pages import Searched

MAX_SEARCH_LENGTH = 500  # characters
# Rows that a search reads one by one, see `Searched`. 1,000 take about 1 ms with the stored words of short texts. To
# compute the words of a comment takes 0.05 ms.
STORED_READS, COMPUTED_READS = (1000, 10_000), (300,)


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


def matching(rows: QuerySet[Any], typed: str, field: str, relation: str = "") -> Searched:
    """Return a search for the words in prompts or completions.

    field: their text, or their messages. relation: the foreign key of the rows to them, if they are not the rows.
    """
    if not typed.strip():
        return Searched(rows)
    matches = Matches(StoredVector(F(f"{relation}__{field}" if relation else field)), typed)
    if not relation:
        return Searched(rows, matches, matches, STORED_READS)
    texts = rows.model._meta.get_field(relation).related_model._default_manager
    of_texts = texts.filter(Matches(StoredVector(F(field)), typed)).values("pk")
    return Searched(rows, matches, IsOneOf(F(f"{relation}_id"), of_texts), STORED_READS)


def matching_short(rows: QuerySet[Any], typed: str, field: str) -> Searched:
    """Return a search for the words in a field that has an index of the rows where it is not empty."""
    if not typed.strip():
        return Searched(rows)
    matches = Matches(SearchVector(field), typed)
    return Searched(rows.filter(~Q(**{field: ""})), matches, matches, COMPUTED_READS)


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
