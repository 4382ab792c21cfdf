"""The lists: prompts, completions, comparisons, rankings, demonstrations, skips.

A list is a query of ids, whose conditions and order an index serves, and one that loads the rows of a page by their
ids. `Filters` that are no conditions here were left out because no index serves them: `training/LOG.md` has the times.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from django.contrib.postgres.expressions import ArraySubquery
from django.db import OperationalError, connection, transaction
from django.db.models import (
    BooleanField,
    Exists,
    ExpressionWrapper,
    F,
    Func,
    IntegerField,
    OuterRef,
    Q,
    QuerySet,
    Subquery,
    TextField,
)
from django.db.models.functions import Left
from django.utils.translation import gettext as _
from psycopg.errors import QueryCanceled

from feedback.errors import Invalid
from feedback.models import Comparison, Completion, Demonstration, Project, Prompt, Ranking, Skip, Source
from feedback.reports.data.filters import STORED_READS, Filters, matching, matching_short, source_of, user_of, within
from feedback.reports.data.pages import (
    DISAGREEMENT,
    ORDERS,
    ROWS_PER_PAGE,
    Cursor,
    Order,
    Page,
    Searched,
    ids_after,
    page_of,
    read_cursor,
)

EXCERPT = 300  # characters of a text in a list
MAX_SECONDS = 5.0  # of one query; each holds a thread of the web service

Ids = Callable[[Project, Filters, Order, Cursor | None, int], list[tuple[int, Any]]]


@dataclass(frozen=True)
class DataList:
    """A list of the data pages and of the API."""

    name: str
    ids: Ids
    load: Callable[[list[int]], Iterable[Any]]
    filters: tuple[str, ...]  # names of the filters that it has
    states: tuple[str, ...] = ()
    sorts: tuple[str, ...] = ("newest", "oldest")


@dataclass(frozen=True)
class Rows:
    """Loaded rows of a page, and the cursor of the next page; "": it is the last one."""

    rows: list[Any]
    next: str


def read(
    listed: DataList, project: Project, filters: Filters, *, sort: str = "newest", cursor: str = "", size: int = 0
) -> Rows:
    """Return a page of a list.

    Raises Invalid for an unknown person or source, a cursor of another list, or a search that takes too long.
    """
    page = ids_of(listed, project, filters, sort=sort, cursor=cursor, size=size or ROWS_PER_PAGE)
    loaded = {row.pk: row for row in listed.load(page.ids)}
    return Rows([loaded[pk] for pk in page.ids if pk in loaded], page.next)


def ids_of(listed: DataList, project: Project, filters: Filters, *, sort: str, cursor: str, size: int) -> Page:
    place = read_cursor(cursor, sort)
    with _time_limit():
        keys = listed.ids(project, filters, ORDERS[sort], place, size + 1)
    return page_of(keys, sort, size)


@contextmanager
def _time_limit() -> Iterator[None]:
    """End queries of the block that take too long, and raise Invalid. A phrase of frequent words may read all texts."""
    try:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SELECT set_config('statement_timeout', %s, true)", [f"{MAX_SECONDS}s"])
            yield
    except OperationalError as error:
        if not isinstance(error.__cause__, QueryCanceled):
            raise
        raise Invalid(_("This search takes too long: use rarer words, or another filter.")) from error


class LastMessage(Func):
    """The beginning of a prompt's last message, so that no list loads whole conversations."""

    template = f"left(%(expressions)s -> -1 ->> 'content', {EXCERPT})"
    output_field = TextField()


def _of_one_query(select: Callable[[Project, Filters, Order], Searched]) -> Ids:
    return lambda project, filters, order, *place: ids_after(select(project, filters, order), order, *place)


def _prompts(project: Project, filters: Filters, order: Order) -> Searched:
    rows = Prompt.objects.filter(project=project)
    if filters.split:
        rows = rows.filter(split=filters.split)
    if filters.external_id:
        rows = rows.filter(external_ids__project=project, external_ids__value=filters.external_id)
    return matching(within(rows, filters), filters.search, "messages")


def _load_prompts(ids: list[int]) -> QuerySet[Prompt]:
    rows = Prompt.objects.filter(pk__in=ids).defer("messages", "references")
    return rows.annotate(
        beginning=LastMessage("messages"),
        completion_count=_count(Completion.objects.filter(prompt=OuterRef("pk"))),
        comparison_count=_count(Comparison.objects.filter(prompt=OuterRef("pk"))),
    )


def _completion_ids(
    project: Project, filters: Filters, order: Order, cursor: Cursor | None, count: int
) -> list[tuple[int, Any]]:
    """Return the first completions of the project's sources.

    Completions belong to a project by their source. Without a search, the first of every source are read from the index
    of that source; otherwise a project among larger ones would read past their rows. A search has one query for all
    sources, because the words' index has no sources.
    """
    rows = within(Completion.objects.all(), filters)
    sources = Source.objects.filter(project=project)
    if filters.source:
        rows = rows.filter(source=source_of(project, filters.source))
    elif filters.search.strip():
        rows = rows.filter(source__in=list(sources.values_list("pk", flat=True)))
    if filters.source or filters.search.strip():
        return ids_after(matching(rows, filters.search, "text"), order, cursor, count)
    if cursor is not None:
        rows = rows.filter(order.after(cursor.value, cursor.pk))
    firsts = rows.filter(source=OuterRef("pk")).order_by(*order.columns)
    columns = [ArraySubquery(firsts.values(name)[:count]) for name in ("pk", "created_at")]
    keys = [key for ids, times in sources.values_list(*columns) for key in zip(ids, times, strict=True)]
    return sorted(keys, key=lambda key: (key[1], key[0]), reverse=order.descends)[:count]


def _load_completions(ids: list[int]) -> QuerySet[Completion]:
    rows = Completion.objects.filter(pk__in=ids).defer("text", "turns", "prompt__messages", "prompt__references")
    return rows.select_related("source", "author", "prompt").annotate(
        beginning=Left("text", EXCERPT),
        prompt_beginning=LastMessage("prompt__messages"),
        is_demonstration=Exists(Demonstration.objects.filter(completion=OuterRef("pk"))),
        comparison_count=_count(Comparison.objects.filter(items__completion=OuterRef("pk"))),
    )


COMPARISON_STATES = {
    "open": Q(open_slots__gt=0),
    "ranked": Q(ranking_count__gt=0),
    "disagreement": Q(disagreement__gt=0, adjudicated_at__isnull=True, gold_ranks__isnull=True),
    "adjudicated": Q(adjudicated_at__isnull=False),
    "gold": Q(gold_ranks__isnull=False),
}


def _comparisons(project: Project, filters: Filters, order: Order) -> Searched:
    rows = Comparison.objects.filter(project=project)
    states = {filters.state} | ({"disagreement"} if order == DISAGREEMENT else set())
    for state in filter(None, states):
        rows = rows.filter(COMPARISON_STATES[state])
    return matching(within(rows, filters), filters.search, "messages", "prompt")


def _load_comparisons(ids: list[int]) -> QuerySet[Comparison]:
    rows = Comparison.objects.filter(pk__in=ids).select_related("prompt", "demonstration")
    rows = rows.defer("prompt__messages", "prompt__references")
    return rows.annotate(
        prompt_beginning=LastMessage("prompt__messages"),
        skip_count=_count(Skip.objects.filter(comparison=OuterRef("pk"))),
    )


RANKING_STATES = {
    "live": Q(is_live=True),
    "overruled": Q(standing=Ranking.Standing.OVERRULED),
    "returned": Q(standing=Ranking.Standing.RETURNED),
    "discarded": Q(standing=Ranking.Standing.DISCARDED),
    "withdrawn": Q(standing=Ranking.Standing.WITHDRAWN),
    "all": ~Q(standing=Ranking.Standing.ERASED),
}


def _rankings(project: Project, filters: Filters, order: Order) -> Searched:
    rows = Ranking.objects.filter(RANKING_STATES[filters.state or "live"], project=project)
    if filters.state in ("overruled", "returned", "discarded", "withdrawn"):
        rows = rows.filter(~Q(standing=Ranking.Standing.COUNTS))  # the condition of `ranking_set_aside`
    if filters.annotator:
        rows = rows.filter(annotator=user_of(project, filters.annotator))
    if filters.has_comment:
        rows = rows.filter(~Q(comment=""))
    rows = within(rows, filters)
    if filters.flag:
        rows, has_flag = rows.filter(~Q(flags=[])), Q(flags__contains=[filters.flag])
        if not filters.search.strip():
            return Searched(rows, ExpressionWrapper(has_flag, BooleanField()), has_flag, STORED_READS)
        rows = rows.filter(has_flag)
    return matching_short(rows, filters.search, "comment")


def _load_rankings(ids: list[int]) -> QuerySet[Ranking]:
    rows = Ranking.objects.filter(pk__in=ids).select_related("annotator", "comparison__prompt", "review__reviewer")
    rows = rows.defer("comparison__prompt__messages", "comparison__prompt__references")
    return rows.annotate(prompt_beginning=LastMessage("comparison__prompt__messages"))


def _demonstrations(project: Project, filters: Filters, order: Order) -> Searched:
    rows = Demonstration.objects.filter(completion__source__project=project).with_discard()
    rows = rows.filter(withdrawn_at__isnull=filters.state != "withdrawn")
    if filters.state in ("counting", "discarded"):
        rows = rows.filter(is_discarded=filters.state == "discarded")
    if filters.annotator:
        rows = rows.filter(completion__author=user_of(project, filters.annotator))
    return matching(within(rows, filters), filters.search, "text", "completion")


def _load_demonstrations(ids: list[int]) -> QuerySet[Demonstration]:
    rows = Demonstration.objects.filter(pk__in=ids).with_discard()
    rows = rows.select_related("completion__author", "completion__source", "completion__prompt")
    rows = rows.defer("completion__text", "completion__turns", "completion__prompt__messages")
    return rows.annotate(
        beginning=Left("completion__text", EXCERPT), prompt_beginning=LastMessage("completion__prompt__messages")
    )


def _skips(project: Project, filters: Filters, order: Order) -> Searched:
    rows = Skip.objects.filter(comparison__project=project)
    if filters.annotator:
        rows = rows.filter(annotator=user_of(project, filters.annotator))
    if filters.has_reason:
        rows = rows.filter(~Q(reason=""))
    return matching_short(within(rows, filters), filters.search, "reason")


def _load_skips(ids: list[int]) -> QuerySet[Skip]:
    rows = Skip.objects.filter(pk__in=ids).select_related("annotator", "comparison__prompt")
    rows = rows.defer("comparison__prompt__messages", "comparison__prompt__references")
    return rows.annotate(prompt_beginning=LastMessage("comparison__prompt__messages"))


def _count(rows: QuerySet[Any]) -> Subquery:
    """Return the number of rows of a query about the outer row."""
    counted = Func(F("pk"), function="count", output_field=IntegerField())  # no aggregate to Django: it does not group
    return Subquery(rows.order_by().annotate(number=counted).values("number"))


PERIOD = ("since", "until")
PROMPTS = DataList("prompts", _of_one_query(_prompts), _load_prompts, ("search", "split", "external_id", *PERIOD))
COMPLETIONS = DataList("completions", _completion_ids, _load_completions, ("search", "source", *PERIOD))
COMPARISONS = DataList(
    "comparisons",
    _of_one_query(_comparisons),
    _load_comparisons,
    ("search", "state", *PERIOD),
    tuple(COMPARISON_STATES),
    ("newest", "oldest", "disagreement"),
)
RANKINGS = DataList(
    "rankings",
    _of_one_query(_rankings),
    _load_rankings,
    ("search", "annotator", "flag", "state", "has_comment", *PERIOD),
    tuple(RANKING_STATES),
)
DEMONSTRATIONS = DataList(
    "demonstrations",
    _of_one_query(_demonstrations),
    _load_demonstrations,
    ("search", "annotator", "state", *PERIOD),
    ("counting", "discarded", "withdrawn"),
)
SKIPS = DataList("skips", _of_one_query(_skips), _load_skips, ("search", "annotator", "has_reason", *PERIOD))
LISTS = {listed.name: listed for listed in (PROMPTS, COMPLETIONS, COMPARISONS, RANKINGS, DEMONSTRATIONS, SKIPS)}
