"""Characters that cannot be seen: each is shown by its number, so that nothing hides in a text."""

import re
import unicodedata
from html import escape
from itertools import islice

MOST = 1_000  # controls shown by number; a text with more of them would grow sixtyfold
INSTEAD = "\ufffd"  # for each control of such a text

_NO_GLYPH = (
    "\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f"
    "\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\u3164\ufe00-\ufe0d\ufeff\uffa0\ufff9-\ufffb"
    "\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
# Joiners (ZWNJ, ZWJ) and emoji selectors are wanted after a letter or emoji of a script that has them, one at a time.
_NO_JOINING = (
    "\\x00-\\x22\\x24-\\x29\\x2b-\\x2f\\x3a-\\u02ff\\u2000-\\u200f\\u2028-\\u202f\\u205f-\\u206f\\u3000\\ufeff"
)
_JOINERS = "\\u200c\\u200d\\ufe0e\\ufe0f"
# One character class comes first, so that a search skips ordinary text fast.
CONTROLS = re.compile(rf"[{_NO_GLYPH}{_JOINERS}](?:(?<=[{_NO_GLYPH}])|(?<![^{_NO_JOINING}][{_JOINERS}]))")


def number_of(text: str) -> int:
    """Return how many controls a text has, MOST + 1 where there are more."""
    return sum(1 for _found in islice(CONTROLS.finditer(text), MOST + 1))


def shown(source: str, start: int, end: int) -> str:
    """HTML of a part of the source: escaped, controls by their number."""
    parts: list[str] = []
    position = start
    for found in CONTROLS.finditer(source, start, end):
        parts += (escape(source[position : found.start()]), _element(found[0]))
        position = found.end()
    parts.append(escape(source[position:end]))
    return "".join(parts)


def _element(character: str) -> str:
    name = unicodedata.name(character, "control character").lower()
    return f'<span class="control" title="{escape(name)}">U+{ord(character):04X}</span>'
