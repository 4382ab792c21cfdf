"""Pages and fields of lists that are JSON arrays: `limit`, `cursor` and `fields`.

Source of the header `Link` with rel="next": RFC 8288. Without `limit` a list is whole, as in version 0.1.
"""

from typing import Any

from django.db.models import QuerySet
from django.utils.translation import gettext as _
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from feedback.api import strict
from feedback.errors import Invalid

MAX_ROWS = 200
FIELDS_HELP = "Only these fields of each row, separated by commas. Default: all."


class ListQuery(strict.Serializer):
    limit = serializers.IntegerField(
        default=None, allow_null=True, min_value=1, max_value=MAX_ROWS, help_text="Rows of a page. Default: all rows."
    )
    cursor = serializers.CharField(
        default="",
        allow_blank=True,
        max_length=200,
        help_text='Place to go on from, as in the header `Link` with rel="next" of the page before.',
    )
    fields = serializers.CharField(default="", allow_blank=True, max_length=1000, help_text=FIELDS_HELP)


def as_page(
    request: Request,
    rows: QuerySet[Any],
    row: type[serializers.Serializer],
    *,
    key: str,
    descends: bool = True,
    most: int | None = None,
) -> Response:
    """Return a list as JSON. key: unique field that orders the rows. most: rows without a `limit`."""
    query = strict.validated_query(ListQuery, request)
    size = query["limit"] or most
    if query["cursor"]:
        rows = rows.filter(**{f"{key}__{'lt' if descends else 'gt'}": _value(rows, key, query["cursor"])})
    page = list(rows if size is None else rows[: size + 1])
    headers = {}
    if size is not None and len(page) > size:
        page = page[:size]
        headers["Link"] = f'<{_next(request, _key_of(page[-1], key))}>; rel="next"'
    return Response(only(row, page, query["fields"]), headers=headers)


def only(row: type[serializers.Serializer], rows: Any, fields: str) -> list[dict[str, Any]]:
    """Return rows as JSON, with these fields alone ("": all). Raises Invalid for an unknown one."""
    names, known = [name.strip() for name in fields.split(",") if name.strip()], list(row().fields)
    if unknown := next((name for name in names if name not in known), None):
        message = _('There is no field "%(name)s": the fields are %(known)s.')
        raise Invalid(message % {"name": unknown, "known": ", ".join(known)})
    bodies = row(rows, many=True).data
    return [{name: body[name] for name in names} for body in bodies] if names else list(bodies)


def _next(request: Request, cursor: Any) -> str:
    parameters = request.query_params.copy()
    parameters["cursor"] = str(cursor)
    return request.build_absolute_uri(f"{request.path}?{parameters.urlencode()}")


def _key_of(row: Any, key: str) -> Any:
    for name in key.split("__"):
        row = getattr(row, name)
    return row


def _value(rows: QuerySet[Any], key: str, cursor: str) -> str | int:
    if "username" in key:
        return cursor
    if not (cursor.isascii() and cursor.isdigit()) or int(cursor) > strict.MAX_BIGINT:
        raise Invalid(_("This cursor is not of this list: start again without a cursor."))
    return int(cursor)
