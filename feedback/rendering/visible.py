"""Map between the visible characters of a rendered text and the source.

White space is not counted, since HTML and browsers rearrange it. A formula or a control shown by code point counts as
one character. `rank/visible.js` counts the same way in the browser. The offsets are those of `pieces`.

A text-quote selector (the quoted text with its neighbours) cannot replace the offsets: it is ambiguous where a
completion repeats itself, and finding a quote of the rendered text in the source needs this same map. The page does
send the beginning of the quote with the offsets, and a span is refused if they do not agree.
"""

from array import array
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from feedback.dialogues import Answer, contents
from feedback.rendering import html
from feedback.rendering.answers import is_long
from feedback.rendering.controls import CONTROLS
from feedback.rendering.pieces import Formula, Text

ATOM = "\ufffc"  # the one character that a formula or a control counts as
SPACES = frozenset(
    " \t\n\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"
)


class Visible(NamedTuple):
    """The visible characters of a text; the i-th stands for the source's characters starts[i] … ends[i] − 1."""

    text: str
    starts: Sequence[int]
    ends: Sequence[int]

    def source_range(self, start: int, end: int) -> tuple[int, int]:
        """Return the source range of the visible characters start … end − 1."""
        return min(self.starts[start:end]), max(self.ends[start:end])

    def visible_range(self, start: int, end: int) -> tuple[int, int]:
        """Return the range of visible characters for a source range, or (0, 0) if nothing of it is visible."""
        offsets = enumerate(zip(self.starts, self.ends, strict=True))
        inside = [index for index, (first, last) in offsets if first < end and last > start]
        return (inside[0], inside[-1] + 1) if inside else (0, 0)


def visible_answer(answer: Answer) -> Visible:
    """Return the visible characters of a completion as `render_answer` shows it; the offsets are in its text."""
    if answer.turns is None:
        return visible(answer.text)
    characters: list[str] = []
    starts, ends = array("q"), array("q")
    for first, content in contents(answer.turns):
        turn = visible(content, as_plain=is_long(answer))
        characters.append(turn.text)
        starts.extend(first + start for start in turn.starts)
        ends.extend(first + end for end in turn.ends)
    return Visible("".join(characters), starts, ends)


def visible(text: str, *, as_plain: bool = False) -> Visible:
    """Return the visible characters of a text as `render` shows it."""
    document = html.parse(text, as_plain=as_plain).document
    characters: list[str] = []
    starts, ends = array("q"), array("q")
    for piece in document.pieces:
        if isinstance(piece, Formula):
            located: Iterator[tuple[str, int, int]] = iter([(ATOM, piece.start, piece.end)])
        elif isinstance(piece, Text):
            located = _characters(document.source, piece)
        else:
            continue
        for character, start, end in located:
            characters.append(character)
            starts.append(start)
            ends.append(end)
    if len(document.source) != len(text):
        starts, ends = _with_carriage_returns(text, starts, ends)
    return Visible("".join(characters), starts, ends)


def _characters(source: str, piece: Text) -> Iterator[tuple[str, int, int]]:
    """Yield (character, start, end) for each visible character of the piece."""
    controls = {match.start() for match in CONTROLS.finditer(source, *piece)}
    for index in range(*piece):
        if index in controls:
            yield ATOM, index, index + 1
        elif source[index] not in SPACES:
            yield source[index], index, index + 1


def _with_carriage_returns(text: str, starts: Sequence[int], ends: Sequence[int]) -> tuple[array, array]:
    """Translate offsets in a source whose CR LF became LF into offsets in the original text."""
    original = [index for index in range(len(text)) if text[index : index + 2] != "\r\n"]
    return array("q", (original[start] for start in starts)), array("q", (original[end - 1] + 1 for end in ends))
