"""Pages of a list: the rows after a cursor, which stay the same while rows are added."""

import binascii
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import F, Q, QuerySet
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


def ids_after(rows: QuerySet[Any], order: Order, cursor: Cursor | None, count: int) -> list[tuple[int, Any]]:
    """Return the ids and values of the first rows after the cursor."""
    if cursor is not None:
        rows = rows.filter(order.after(cursor.value, cursor.pk))
    return list(rows.order_by(*order.columns).values_list("pk", order.field)[:count])


def page_of(keys: Sequence[tuple[int, Any]], sort: str, size: int) -> Page:
    """Return the page of the first `size` rows. `keys` has one more row where the list goes on."""
    rows = keys[:size]
    following = str(Cursor(sort, rows[-1][1], rows[-1][0])) if len(keys) > size else ""
    return Page([pk for pk, _value in rows], following)
