"""Markdown within one line: bold, struck out, code, links and formulas. Linear in the line's length.

Markers are hidden only where nothing else can be meant. `**` and `~~` must stand around words, as in `a **b** c`, and
not within them or between brackets (`2**3`, `f(x)**(y)`). A single `*` makes italics and stays visible; `_` means
nothing (`__init__`). A backslash is shown, and takes the markup out of what follows. Links show their whole source.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from html import escape

from feedback.rendering import controls
from feedback.rendering.mathematics import CLOSERS, LONGEST, is_no_money, may_set
from feedback.rendering.pieces import Formula, Hidden, Page, Piece, Shown

_SPECIAL = re.compile(r"[`*~\[<$\\]")
_LINK = re.compile(
    r"\[([^\[\]\n]{1,1000}+)\]\(((?:https?://|mailto:)[^\s()<>\[\]]{1,2000}+(?:\([^\s()<>\[\]]{0,200}+\)[^\s()<>\[\]]{0,200}+)?)"
    r"(?:[ ]\"[^\"\n\[\]]{0,300}+\")?\)"
)
_ADDRESS = re.compile(r"<((?:https?://|mailto:)[^\s<>]{1,2000}+)>")
_BACKTICKS = [re.compile(rf"(?<!`)`{{{count}}}(?!`)") for count in range(1, 5)]
_PUNCTUATION = frozenset("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")
_RUNS = {"*": re.compile(r"\*+"), "~": re.compile("~+"), "`": re.compile("`+")}

Read = tuple[list["Piece | Delimiter"], int]  # what stands there, and where the line goes on


@dataclass
class Delimiter:
    """A run of `*` or `~` that may open or close what is between two of them."""

    start: int
    end: int
    marker: str
    can_open: bool
    can_close: bool
    role: str = ""  # "open" or "close", once its partner is found


@dataclass
class _Line:
    page: Page
    start: int
    end: int
    places: dict[str, int] = field(default_factory=dict)  # where each closer stands next; -1 where there is none

    def find(self, closer: str, start: int) -> int:
        """As str.find; every part of the line is searched once, since `start` only grows."""
        place = self.places.get(closer, 0)
        if 0 <= place < start:
            place = self.places[closer] = self.page.source.find(closer, start, self.end)
        return place


def inline(page: Page, start: int, end: int) -> list[Piece]:
    """The pieces of a line's characters start … end − 1."""
    line = _Line(page, start, end)
    read: list[Piece | Delimiter] = []
    shown = position = start
    while found := _SPECIAL.search(page.source, position, end):
        page.step()
        position = found.start()
        pieces, after = _READERS[found[0]](line, position)
        if pieces:
            if shown < position:
                read.append(Shown(shown, position))
            read += pieces
            shown = after
        position = after
    if shown < end:
        read.append(Shown(shown, end))
    return _paired(read)


def _code(line: _Line, at: int) -> Read:
    source = line.page.source
    after = _RUNS["`"].match(source, at, line.end).end()  # type: ignore[union-attr]
    count = after - at
    if count > len(_BACKTICKS) or line.places.get("`" * count) == -1:
        return [], after
    closer = _BACKTICKS[count - 1].search(source, after, line.end)
    if closer is None:
        line.places["`" * count] = -1
        return [], after
    if not source[after : closer.start()].strip():
        return [], closer.end()
    return [
        Hidden(at, after, "code"),
        "<code>",
        Shown(after, closer.start()),
        "</code>",
        Hidden(closer.start(), closer.end(), "code"),
    ], closer.end()


def _backslash(line: _Line, at: int) -> Read:
    """A formula, or an escape: it is shown, and what follows it is no markup."""
    source = line.page.source
    if source[at : at + 2] in CLOSERS and at + 2 <= line.end:
        read = _formula(line, at, source[at : at + 2])
        if read[0]:
            return read
    if at + 1 < line.end and source[at + 1] in _PUNCTUATION:
        return [], at + 2
    return [], at + 1


def _dollar(line: _Line, at: int) -> Read:
    source = line.page.source
    for opener in ("$$", "$"):
        if source.startswith(opener, at, line.end):
            read = _formula(line, at, opener)
            if read[0] or opener == "$":
                return read
    return [], at + 1


def _formula(line: _Line, at: int, opener: str) -> Read:
    source, start = line.page.source, at + len(opener)
    end = line.find(CLOSERS[opener], start)
    if end < 0 or end - start > LONGEST or not source[start:end].strip():
        return [], start
    if opener == "$" and not is_no_money(source, start, end):
        return [], start
    after = end + len(opener)
    if not may_set(line.page, source[start:end]):
        return [Shown(at, after)], after  # as text, and read once
    return [Formula(at, after, source[start:end], opener in ("$$", "\\["))], after


def _link(line: _Line, at: int) -> Read:
    found = _LINK.match(line.page.source, at, line.end)
    if found is None:
        return [], at + 1
    line.page.step()  # its tag costs more than others
    label = inline(line.page, found.start(1), found.end(1))
    return [
        Shown(at, at + 1),
        _opening(found[2]),
        *label,
        "</a>",
        Shown(found.end(1), found.end()),
    ], found.end()


def _address(line: _Line, at: int) -> Read:
    found = _ADDRESS.match(line.page.source, at, line.end)
    if found is None:
        return [], at + 1
    line.page.step()
    return [
        Shown(at, at + 1),
        _opening(found[1]),
        Shown(found.start(1), found.end(1)),
        "</a>",
        Shown(found.end() - 1, found.end()),
    ], found.end()


def _opening(address: str) -> str:
    return f'<a href="{escape(controls.CONTROLS.sub("", address))}">'


def _delimiter(line: _Line, at: int) -> Read:
    source = line.page.source
    marker = source[at]
    after = _RUNS[marker].match(source, at, line.end).end()  # type: ignore[union-attr]
    if after - at > 3 or (marker == "~" and after - at != 2):
        return [], after
    before = source[at - 1] if at > line.start else " "
    behind = source[after] if after < line.end else " "
    can_open = not behind.isspace() and behind not in ")]},;!?/" and not _is_part_of_word(before, ")]}")
    can_close = not before.isspace() and before not in "([{/" and not _is_part_of_word(behind, "([{")
    if not (can_open or can_close):
        return [], after
    return [Delimiter(at, after, source[at:after], can_open, can_close)], after


def _is_part_of_word(neighbour: str, brackets: str) -> bool:
    """Whether a marker beside this character stands within a word or an expression. Some scripts write no spaces."""
    writes_spaces = ord(neighbour) < 0x0E00 or 0x10A0 <= ord(neighbour) < 0x1780 or 0x1E00 <= ord(neighbour) < 0x2E80
    return (neighbour.isalnum() and writes_spaces) or neighbour in "_\\/" or neighbour in brackets


def _paired(read: list[Piece | Delimiter]) -> list[Piece]:
    """Delimiters become tags where two of a kind meet; the others are text. At most four are open at once."""
    opened: dict[str, tuple[int, Delimiter]] = {}
    for index, each in enumerate(read):
        if not isinstance(each, Delimiter):
            continue
        if each.can_close and each.marker in opened:
            place, opener = opened[each.marker]
            opener.role, each.role = "open", "close"
            opened = {marker: other for marker, other in opened.items() if other[0] < place}
        elif each.can_open:
            opened[each.marker] = index, each
    return [piece for each in read for piece in (_written(each) if isinstance(each, Delimiter) else (each,))]


def _written(delimiter: Delimiter) -> list[Piece]:
    start, end, marker = delimiter.start, delimiter.end, delimiter.marker
    if not delimiter.role:
        return [Shown(start, end)]
    opens = delimiter.role == "open"
    if marker == "*":
        return ["<em>", Shown(start, end)] if opens else [Shown(start, end), "</em>"]
    if marker == "~~":
        return [Hidden(start, end, "strike"), "<s>"] if opens else ["</s>", Hidden(start, end, "strike")]
    if marker == "**":
        return [Hidden(start, end, "bold"), "<strong>"] if opens else ["</strong>", Hidden(start, end, "bold")]
    if opens:
        return [Hidden(start, start + 2, "bold"), "<strong><em>", Shown(start + 2, end)]
    return [Shown(start, start + 1), "</em></strong>", Hidden(start + 1, end, "bold")]


_READERS: dict[str, Callable[[_Line, int], Read]] = {
    "`": _code,
    "\\": _backslash,
    "$": _dollar,
    "[": _link,
    "<": _address,
    "*": _delimiter,
    "~": _delimiter,
}
