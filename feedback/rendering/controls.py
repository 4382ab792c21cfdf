"""Invisible characters: each is shown by its code point, so that nothing hides in a text."""

import re
import unicodedata
from html import escape
from itertools import islice

MAX_CONTROLS = 1_000  # shown by code point in one text; each makes the HTML about 60 characters longer
REPLACEMENT = "\ufffd"  # for each control of a text that has more

_NO_GLYPH = (
    "\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f"
    "\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\u3164\ufe00-\ufe0d\ufeff\uffa0\ufff9-\ufffb"
    "\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
# Joiners (ZWNJ, ZWJ) and emoji selectors are no controls after a letter or emoji of a script that uses them, if single.
_NO_JOINING = (
    "\\x00-\\x22\\x24-\\x29\\x2b-\\x2f\\x3a-\\u02ff\\u2000-\\u200f\\u2028-\\u202f\\u205f-\\u206f\\u3000\\ufeff"
)
_JOINERS = "\\u200c\\u200d\\ufe0e\\ufe0f"
# The pattern begins with one character class, so that the search skips ordinary text fast.
CONTROLS = re.compile(rf"[{_NO_GLYPH}{_JOINERS}](?:(?<=[{_NO_GLYPH}])|(?<![^{_NO_JOINING}][{_JOINERS}]))")


def count_controls(text: str) -> int:
    """Return the number of controls in a text, at most MAX_CONTROLS + 1."""
    return sum(1 for _match in islice(CONTROLS.finditer(text), MAX_CONTROLS + 1))


def to_html(source: str, start: int, end: int) -> str:
    """Return a part of the source as HTML: escaped, with controls shown by code point."""
    parts: list[str] = []
    position = start
    for match in CONTROLS.finditer(source, start, end):
        parts += (escape(source[position : match.start()]), _element(match[0]))
        position = match.end()
    parts.append(escape(source[position:end]))
    return "".join(parts)


def _element(character: str) -> str:
    name = unicodedata.name(character, "control character").lower()
    return f'<span class="control" title="{escape(name)}">U+{ord(character):04X}</span>'
