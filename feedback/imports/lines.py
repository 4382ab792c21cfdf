"""Reader of JSON Lines: bytes to rows, with one line at a time in memory."""

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

from django.utils.translation import gettext as _

from feedback.errors import Invalid, TooLarge

MAX_LINE_BYTES = 16 * 1024 * 1024
ARRAY_BEGINS = re.compile(rb"(\xef\xbb\xbf)?\s*\[\s*(\{|$)")


class UnreadableLine:
    """A line that is not JSON. It is a row of the stream, so that `read_all` can report it with other errors."""

    def __init__(self, message: str) -> None:
        self.message = message


def read_lines(lines: Iterable[bytes], max_bytes: int = 64 * 1024 * 1024) -> Iterator[object]:
    """Yield the value of each line. Empty lines are errors, except at the end.

    `lines` is a file opened for reading bytes, or any iterable of lines. Raises TooLarge.
    """
    total = 0
    blank = 0
    for line in lines:
        total += len(line)
        if total > max_bytes:
            raise TooLarge(
                _("The upload has more than %(most)s MiB: send the rows in several parts.")
                % {"most": max_bytes // 2**20}
            )
        if not line.strip():
            blank += 1
            continue
        yield from [UnreadableLine(_("The line is empty."))] * blank  # a row's number is its line's number
        blank = 0
        yield _read(line)


def _read(line: bytes) -> object:
    if len(line) > MAX_LINE_BYTES:
        return UnreadableLine(_("The line has more than %(most)s MiB.") % {"most": MAX_LINE_BYTES // 2**20})
    try:
        return loads(line)
    except Invalid as error:
        if ARRAY_BEGINS.match(line):
            return UnreadableLine(
                _("A JSON array begins here: send JSON Lines, one object per line (jq -c '.[]' FILE).")
            )
        return UnreadableLine(error.message)


def loads(encoded: bytes) -> Any:
    """Parse standard JSON in UTF-8: NaN, Infinity and deep nesting raise Invalid."""
    try:
        return DECODER.decode(encoded.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise Invalid(_("The text is not UTF-8.")) from None
    except RecursionError:
        raise Invalid(_("The JSON is nested too deeply.")) from None
    except json.JSONDecodeError as error:
        raise Invalid(
            _("The text is not JSON: %(msg)s at character %(colno)s.") % {"msg": error.msg, "colno": error.colno}
        ) from None
    except ValueError:  # Python refuses to parse an integer of more than 4300 digits
        raise Invalid(_("The JSON has a number with too many digits.")) from None


def _refuse_constant(name: str) -> None:
    raise Invalid(_("The text contains %(name)s, which JSON does not allow.") % {"name": name})


DECODER = json.JSONDecoder(parse_constant=_refuse_constant)  # one for all lines: making it takes longer than a line
