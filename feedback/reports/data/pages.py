"""Pages of a list: the rows after a cursor, which stay the same while rows are added."""

import binascii
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from django.core.exceptions import EmptyResultSet
from django.db import connection
from django.db.models import Expression, F, Q, QuerySet
from django.db.models.fields.tuple_lookups import TupleGreaterThan, TupleLessThan
from django.utils.translation import gettext as _

from feedback.errors import Invalid

ROWS_PER_PAGE = 25
MAX_ROWS_PER_PAGE = 200


@dataclass(frozen=True)
class Order:
    """Order of a list by a field of its rows, then by id. Both descend, or both ascend; `disagreement` is mixed."""

    field: str = "created_at"
    descends: bool = True

    @property
    def columns(self) -> tuple[str, str]:
        if self.field == "disagreement":
            return ("-disagreement", "pk")
        return (f"-{self.field}", "-pk") if self.descends else (self.field, "pk")

    def after(self, value: Any, pk: int) -> Any:
        """Return the condition that a row comes after the row with this value and id."""
        if self.field == "disagreement":
            return Q(disagreement__lte=value) & (Q(disagreement__lt=value) | Q(pk__gt=pk))
        comparison = TupleLessThan if self.descends else TupleGreaterThan
        return comparison((F(self.field), F("pk")), (value, pk))


NEWEST, OLDEST, DISAGREEMENT = Order(), Order(descends=False), Order("disagreement")
ORDERS = {"newest": NEWEST, "oldest": OLDEST, "disagreement": DISAGREEMENT}


@dataclass(frozen=True)
class Cursor:
    """Place in a list: behind the row with this value and id."""

    sort: str
    value: Any  # datetime or float
    pk: int

    def __str__(self) -> str:
        value = self.value.isoformat() if isinstance(self.value, datetime) else self.value
        return urlsafe_b64encode(json.dumps([self.sort, value, self.pk]).encode()).decode().rstrip("=")


def read_cursor(text: str, sort: str) -> Cursor | None:
    """Return the cursor that `str` wrote, None for "". Raises Invalid if it is damaged or of another order."""
    if not text:
        return None
    try:
        of_sort, value, pk = json.loads(urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        value = float(value) if sort == "disagreement" else datetime.fromisoformat(value)
        is_readable = of_sort == sort and isinstance(pk, int) and abs(pk) < 2**63
    except (ValueError, TypeError, binascii.Error):
        is_readable = False
    if not is_readable or (isinstance(value, datetime) and value.tzinfo is None):
        raise Invalid(_("This cursor is not of this list: start again without a cursor."))
    return Cursor(sort, value, pk)


@dataclass(frozen=True)
class Page:
    """Ids of a list's rows in order, and the cursor of the next page; "": it is the last one."""

    ids: list[int]
    next: str


class Searched(NamedTuple):
    """The rows of a list, and a search in them."""

    rows: QuerySet[Any]
    matches: Expression | None = None  # condition for rows that are read one by one; None: no search
    by_index: Expression | Q | None = None  # the same condition for the words' index
    reads: tuple[int, ...] = ()  # numbers of first rows to read one by one


def ids_after(searched: Searched, order: Order, cursor: Cursor | None, count: int) -> list[tuple[int, Any]]:
    """Return the ids and values of the first rows after the cursor.

    A search first reads rows one by one in their order: `reads` of them, as long as more can be expected to have enough
    matches. Otherwise the words are rare, and it reads all matches from the words' index. PostgreSQL's choice between
    the two would rely on the words' frequencies alone: it reads every row for frequent words that never occur together.
    """
    rows = searched.rows
    if cursor is not None:
        rows = rows.filter(order.after(cursor.value, cursor.pk))
    rows = rows.order_by(*order.columns)
    if searched.matches is None:
        return list(rows.values_list("pk", order.field)[:count])
    share = 1.0  # of matches among the rows that were read
    for number in searched.reads:
        if share * number < count:
            break
        matches = _first_matches(rows, searched, order, number, count)
        if len(matches) == count:
            return matches
        share = len(matches) / number
    with _by_index():
        return list(rows.filter(searched.by_index).values_list("pk", order.field)[:count])


def _first_matches(
    rows: QuerySet[Any], searched: Searched, order: Order, number: int, count: int
) -> list[tuple[int, Any]]:
    """Return the first matches, at most `count`, among the first rows, `number` of them."""
    read = rows.annotate(is_match=searched.matches).values_list("pk", order.field, "is_match")[:number]
    try:
        sql, parameters = read.query.sql_with_params()
    except EmptyResultSet:  # a project without sources
        return []
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT pk, value FROM ({sql}) AS read (pk, value, is_match) WHERE is_match LIMIT %s",
            [*parameters, count],
        )
        return cursor.fetchall()


@contextmanager
def _by_index() -> Iterator[None]:
    """Let queries of the block look rows up by an index's bitmap, not in the order of an index. Needs a transaction."""
    names = ("enable_indexscan", "enable_seqscan")
    with connection.cursor() as cursor:
        for name in names:
            cursor.execute(f"SET LOCAL {name} TO off")
        yield
        for name in names:
            cursor.execute(f"SET LOCAL {name} TO DEFAULT")


def page_of(keys: Sequence[tuple[int, Any]], sort: str, size: int) -> Page:
    """Return the page of the first `size` rows. `keys` has one more row where the list goes on."""
    rows = keys[:size]
    following = str(Cursor(sort, rows[-1][1], rows[-1][0])) if len(keys) > size else ""
    return Page([pk for pk, _value in rows], following)
