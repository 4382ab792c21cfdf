"""Values of a row by path, and checks of their types. Every error names the column."""

import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from django.utils import timezone
from django.utils.translation import gettext as _

from feedback.errors import Invalid

Row = Mapping[str, Any]
MAX_VALUE_SHOWN = 80  # characters
MILLISECONDS_FROM = 1e11  # a larger number of seconds would be after the year 5000
TRUE, FALSE = ("true", "1", "yes"), ("false", "0", "no", "")
MISSING = object()


class FieldError(Invalid):
    """A row that cannot be imported: the column, its value, and the reason."""

    def __init__(self, message: str, field: str = "", value: object = None) -> None:
        super().__init__(message)
        self.field, self.value = field, excerpt(value)


def excerpt(value: object) -> str:
    """Return the beginning of a value for an error message."""
    if value is None or value is MISSING:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    text = text[: MAX_VALUE_SHOWN + 1].encode(errors="replace").decode().replace("\x00", "␀")
    return text if len(text) <= MAX_VALUE_SHOWN else text[: MAX_VALUE_SHOWN - 1] + "…"


def lookup(row: Any, path: str) -> Any:
    """Return the value at a path, or MISSING."""
    if isinstance(row, Mapping) and path in row:
        return row[path]
    value = row
    for part in path.split("."):
        if isinstance(value, str) and value[:1] in ("{", "["):
            value = _from_json(value)
        if isinstance(value, Mapping) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            return MISSING
    return value


def needed(row: Any, path: str) -> Any:
    """Return the value at a path. Raises FieldError if there is none."""
    value = lookup(row, path)
    if value is MISSING or value is None:
        raise FieldError(_('The row has no "%(column)s".') % {"column": path}, path)
    return value


def optional(row: Any, path: str) -> Any:
    """Return the value at a path; None without a path, or if the value is missing or an empty text."""
    value = lookup(row, path) if path else None
    return None if value is MISSING or value == "" else value


def text(row: Any, path: str) -> str:
    value = needed(row, path)
    if not isinstance(value, str):
        raise FieldError(_('"%(column)s" must be a text.') % {"column": path}, path, value)
    return value


def as_list(value: object, path: str) -> list[Any]:
    """Return a list, which a text may hold as JSON. Raises FieldError."""
    read = _from_json(value) if isinstance(value, str) else value
    if not isinstance(read, list):
        if isinstance(value, str) and read is MISSING:
            raise FieldError(
                _('"%(column)s" should hold a list as JSON, and is not JSON.') % {"column": path}, path, value
            )
        raise FieldError(_('"%(column)s" must be a list.') % {"column": path}, path, value)
    return read


def as_object(value: object, path: str) -> dict[str, Any]:
    """Return an object, which a text may hold as JSON. Raises FieldError."""
    read = _from_json(value) if isinstance(value, str) else value
    if not isinstance(read, dict):
        raise FieldError(_('"%(column)s" must be an object.') % {"column": path}, path, value)
    return read


def as_number(value: object, path: str) -> float:
    """Return a finite number, which may be written as a text. Raises FieldError."""
    try:
        number = math.nan if isinstance(value, bool) or not isinstance(value, int | float | str) else float(value)
    except (ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise FieldError(_('"%(column)s" must be a number.') % {"column": path}, path, value)
    return number


def as_boolean(value: object, path: str) -> bool:
    if value is None or value is MISSING:
        return False
    written = label(value).casefold()
    if written not in TRUE + FALSE:
        raise FieldError(_('"%(column)s" must be true or false.') % {"column": path}, path, value)
    return written in TRUE


def label(value: object) -> str:
    """Return a label as a map writes it: true and false in lower case, whole numbers without a point."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


def as_time(value: object, path: str) -> datetime:
    """Return a moment of ISO 8601 text (UTC unless it names a zone), or of seconds or milliseconds since 1970."""
    try:
        if isinstance(value, datetime):
            moment = value
        elif isinstance(value, str) and not value.replace(".", "", 1).isdecimal():
            moment = datetime.fromisoformat(value)
        else:
            seconds = as_number(value, path)
            moment = datetime.fromtimestamp(seconds / 1000 if seconds > MILLISECONDS_FROM else seconds, UTC)
    except (ValueError, OverflowError, OSError):
        raise FieldError(_('"%(column)s" is not a time.') % {"column": path}, path, value) from None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    if moment > timezone.now():
        raise FieldError(_('"%(column)s" is in the future.') % {"column": path}, path, value)
    return moment


def _from_json(value: str) -> Any:
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return MISSING
