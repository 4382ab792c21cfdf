"""Where in a text each character stands that a page shows of it.

Visible characters are counted without white space, which HTML and browsers rearrange; what is shown as one thing (a
formula, a control made visible) counts as one character. `rank/visible.js` counts the same way in the browser. The
places are those of the pieces that the page is made of (`pieces`).
"""

from array import array
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from feedback.rendering import html
from feedback.rendering.controls import CONTROLS
from feedback.rendering.pieces import Formula, Shown

ATOM = "\ufffc"  # stands for a thing that is shown as one
SPACES = frozenset(
    " \t\n\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"
)


class Visible(NamedTuple):
    """The visible characters of a text; the i-th is shown for the raw characters starts[i] … ends[i] − 1."""

    text: str
    starts: Sequence[int]
    ends: Sequence[int]

    def raw(self, start: int, end: int) -> tuple[int, int]:
        """The raw characters for which the visible ones from `start` to `end` (not included) are shown."""
        return min(self.starts[start:end]), max(self.ends[start:end])

    def covering(self, start: int, end: int) -> tuple[int, int]:
        """The visible characters shown for a part of the raw ones; (0, 0) when there are none."""
        places = enumerate(zip(self.starts, self.ends, strict=True))
        inside = [index for index, (first, last) in places if first < end and last > start]
        return (inside[0], inside[-1] + 1) if inside else (0, 0)


def visible(text: str) -> Visible:
    """Return the visible characters of a text as `render` shows it."""
    page = html.read(text).page
    shown: list[str] = []
    starts, ends = array("q"), array("q")
    for piece in page.pieces:
        if isinstance(piece, Formula):
            places: Iterator[tuple[str, int, int]] = iter([(ATOM, piece.start, piece.end)])
        elif isinstance(piece, Shown):
            places = _places(page.source, piece)
        else:
            continue
        for character, start, end in places:
            shown.append(character)
            starts.append(start)
            ends.append(end)
    if len(page.source) != len(text):
        starts, ends = _before_line_feeds(text, starts, ends)
    return Visible("".join(shown), starts, ends)


def _places(source: str, piece: Shown) -> Iterator[tuple[str, int, int]]:
    controls = {found.start() for found in CONTROLS.finditer(source, *piece)}
    for index in range(*piece):
        if index in controls:
            yield ATOM, index, index + 1
        elif source[index] not in SPACES:
            yield source[index], index, index + 1


def _before_line_feeds(text: str, starts: Sequence[int], ends: Sequence[int]) -> tuple[array, array]:
    """The places in a text whose CR LF were read as LF."""
    raw = [index for index in range(len(text)) if text[index : index + 2] != "\r\n"]
    return array("q", (raw[each] for each in starts)), array("q", (raw[each - 1] + 1 for each in ends))
