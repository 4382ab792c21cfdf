"""JSON Lines in: bytes to rows, never more than a line in memory."""

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

from django.utils.translation import gettext as _

from feedback.errors import Invalid, TooLarge

LONGEST_LINE = 16 * 1024 * 1024  # bytes
ARRAY_BEGINS = re.compile(rb"(\xef\xbb\xbf)?\s*\[\s*(\{|$)")


class Unreadable:
    """A line that is no JSON; `read_all` reports it with the others."""

    def __init__(self, message: str) -> None:
        self.message = message


def read_lines(lines: Iterable[bytes], most_bytes: int = 64 * 1024 * 1024) -> Iterator[object]:
    """Each line's value, as `json.loads` gives it. Empty lines may only come at the end.

    `lines` is a file opened for reading bytes, or any iterable of lines.
    """
    total = 0
    blank = 0
    for line in lines:
        total += len(line)
        if total > most_bytes:
            raise TooLarge(
                _("There are more than %(most)s MiB: send the rows in several parts.") % {"most": most_bytes // 2**20}
            )
        if not line.strip():
            blank += 1
            continue
        yield from [Unreadable(_("It is empty."))] * blank  # a row's number is its line's number
        blank = 0
        yield _read(line)


def _read(line: bytes) -> object:
    if len(line) > LONGEST_LINE:
        return Unreadable(_("It has more than %(most)s MiB.") % {"most": LONGEST_LINE // 2**20})
    try:
        return loads(line)
    except Invalid as error:
        if ARRAY_BEGINS.match(line):
            return Unreadable(_("A JSON array begins here: send JSON Lines, one object a line (jq -c '.[]' FILE)."))
        return Unreadable(error.message)


def loads(encoded: bytes) -> Any:
    """JSON in UTF-8 as the standard has it: no NaN or Infinity, no nesting without end."""
    try:
        return json.loads(encoded.decode("utf-8-sig"), parse_constant=_refuse_constant)
    except UnicodeDecodeError:
        raise Invalid(_("It is not UTF-8.")) from None
    except RecursionError:
        raise Invalid(_("It is nested too deeply.")) from None
    except json.JSONDecodeError as error:
        raise Invalid(
            _("It is not JSON: %(msg)s at character %(colno)s.") % {"msg": error.msg, "colno": error.colno}
        ) from None
    except ValueError:  # an integer of thousands of digits
        raise Invalid(_("It has a number that is too long.")) from None


def _refuse_constant(name: str) -> None:
    raise Invalid(_("It has %(name)s, which JSON does not know.") % {"name": name})
