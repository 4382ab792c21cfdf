"""Parser of Markdown within one line: bold, strike-through, code, links and formulas, in linear time.

Markers are hidden only where nothing else can be meant. `**` and `~~` must stand around words, as in `a **b** c`, and
not within words or between brackets (`2**3`, `f(x)**(y)`). A single `*` makes italics and stays visible; `_` is plain
text (`__init__`). A backslash is visible and makes the next character plain text. Links show their whole source.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from html import escape

from feedback.rendering import controls
from feedback.rendering.mathematics import CLOSERS, MAX_FORMULA_LENGTH, accept_formula, looks_like_mathematics
from feedback.rendering.pieces import Document, Formula, Marker, Piece, Text

_SPECIAL = re.compile(r"[`*~\[<$\\]")
_LINK = re.compile(
    r"\[([^\[\]\n]{1,1000}+)\]\(((?:https?://|mailto:)[^\s()<>\[\]]{1,2000}+(?:\([^\s()<>\[\]]{0,200}+\)[^\s()<>\[\]]{0,200}+)?)"
    r"(?:[ ]\"[^\"\n\[\]]{0,300}+\")?\)"
)
_ADDRESS = re.compile(r"<((?:https?://|mailto:)[^\s<>]{1,2000}+)>")
_BACKTICKS = [re.compile(rf"(?<!`)`{{{count}}}(?!`)") for count in range(1, 5)]
_PUNCTUATION = frozenset("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")
_RUNS = {"*": re.compile(r"\*+"), "~": re.compile("~+"), "`": re.compile("`+")}

Parsed = tuple[list["Piece | Delimiter"], int]  # pieces (none: plain text), and where parsing continues


@dataclass
class Delimiter:
    """A run of `*` or `~` that may open or close emphasis."""

    start: int
    end: int
    marker: str
    can_open: bool
    can_close: bool
    role: str = ""  # "open" or "close" once it is paired


@dataclass
class _Line:
    document: Document
    start: int
    end: int
    next_closer: dict[str, int] = field(default_factory=dict)  # closer -> its next offset; -1 if there is none

    def find(self, closer: str, start: int) -> int:
        """Do as str.find. `start` only grows, so each part of the line is searched once per closer."""
        offset = self.next_closer.get(closer, 0)
        if 0 <= offset < start:
            offset = self.next_closer[closer] = self.document.source.find(closer, start, self.end)
        return offset


def parse_inline(document: Document, start: int, end: int) -> list[Piece]:
    """Return the pieces of the source's characters start … end − 1, which are one line."""
    line = _Line(document, start, end)
    parsed: list[Piece | Delimiter] = []
    text_start = position = start
    while special := _SPECIAL.search(document.source, position, end):
        document.step()
        position = special.start()
        pieces, after = _PARSERS[special[0]](line, position)
        if pieces:
            if text_start < position:
                parsed.append(Text(text_start, position))
            parsed += pieces
            text_start = after
        position = after
    if text_start < end:
        parsed.append(Text(text_start, end))
    return _pair(parsed)


def _code(line: _Line, at: int) -> Parsed:
    source = line.document.source
    after = _RUNS["`"].match(source, at, line.end).end()  # type: ignore[union-attr]
    count = after - at
    if count > len(_BACKTICKS) or line.next_closer.get("`" * count) == -1:
        return [], after
    closer = _BACKTICKS[count - 1].search(source, after, line.end)
    if closer is None:
        line.next_closer["`" * count] = -1
        return [], after
    if not source[after : closer.start()].strip():
        return [], closer.end()
    return [
        Marker(at, after, "code"),
        "<code>",
        Text(after, closer.start()),
        "</code>",
        Marker(closer.start(), closer.end(), "code"),
    ], closer.end()


def _backslash(line: _Line, at: int) -> Parsed:
    """Parse a formula or an escape. The backslash of an escape stays visible; what follows is no markup."""
    source = line.document.source
    if source[at : at + 2] in CLOSERS and at + 2 <= line.end:
        formula = _formula(line, at, source[at : at + 2])
        if formula[0]:
            return formula
    if at + 1 < line.end and source[at + 1] in _PUNCTUATION:
        return [], at + 2
    return [], at + 1


def _dollar(line: _Line, at: int) -> Parsed:
    source = line.document.source
    for opener in ("$$", "$"):
        if source.startswith(opener, at, line.end):
            formula = _formula(line, at, opener)
            if formula[0] or opener == "$":
                return formula
    return [], at + 1


def _formula(line: _Line, at: int, opener: str) -> Parsed:
    source, start = line.document.source, at + len(opener)
    end = line.find(CLOSERS[opener], start)
    if end < 0 or end - start > MAX_FORMULA_LENGTH or not source[start:end].strip():
        return [], start
    if opener == "$" and not looks_like_mathematics(source, start, end):
        return [], start
    after = end + len(opener)
    if not accept_formula(line.document, source[start:end]):
        return [Text(at, after)], after  # plain text; not parsed again
    return [Formula(at, after, source[start:end], opener in ("$$", "\\["))], after


def _link(line: _Line, at: int) -> Parsed:
    link = _LINK.match(line.document.source, at, line.end)
    if link is None:
        return [], at + 1
    line.document.step()  # once more: the allow-list takes longer for links than for other tags
    label = parse_inline(line.document, link.start(1), link.end(1))
    return [
        Text(at, at + 1),
        _opening(link[2]),
        *label,
        "</a>",
        Text(link.end(1), link.end()),
    ], link.end()


def _address(line: _Line, at: int) -> Parsed:
    link = _ADDRESS.match(line.document.source, at, line.end)
    if link is None:
        return [], at + 1
    line.document.step()
    return [
        Text(at, at + 1),
        _opening(link[1]),
        Text(link.start(1), link.end(1)),
        "</a>",
        Text(link.end() - 1, link.end()),
    ], link.end()


def _opening(address: str) -> str:
    return f'<a href="{escape(controls.CONTROLS.sub("", address))}">'


def _delimiter(line: _Line, at: int) -> Parsed:
    source = line.document.source
    marker = source[at]
    after = _RUNS[marker].match(source, at, line.end).end()  # type: ignore[union-attr]
    if after - at > 3 or (marker == "~" and after - at != 2):
        return [], after
    before = source[at - 1] if at > line.start else " "
    following = source[after] if after < line.end else " "
    can_open = not following.isspace() and following not in ")]},;!?/" and not _is_part_of_word(before, ")]}")
    can_close = not before.isspace() and before not in "([{/" and not _is_part_of_word(following, "([{")
    if not (can_open or can_close):
        return [], after
    return [Delimiter(at, after, source[at:after], can_open, can_close)], after


def _is_part_of_word(neighbour: str, brackets: str) -> bool:
    """Return whether a marker next to this character is inside a word or expression.

    Chinese, Japanese, Thai and similar scripts have no spaces between words: their letters are never a part of a word.
    """
    writes_spaces = ord(neighbour) < 0x0E00 or 0x10A0 <= ord(neighbour) < 0x1780 or 0x1E00 <= ord(neighbour) < 0x2E80
    return (neighbour.isalnum() and writes_spaces) or neighbour in "_\\/" or neighbour in brackets


def _pair(parsed: list[Piece | Delimiter]) -> list[Piece]:
    """Turn pairs of equal delimiters into tags, and all others into text. At most four are open at once."""
    opened: dict[str, tuple[int, Delimiter]] = {}
    for index, item in enumerate(parsed):
        if not isinstance(item, Delimiter):
            continue
        if item.can_close and item.marker in opened:
            opener_index, opener = opened[item.marker]
            opener.role, item.role = "open", "close"
            opened = {marker: other for marker, other in opened.items() if other[0] < opener_index}
        elif item.can_open:
            opened[item.marker] = index, item
    pieces: list[Piece] = []
    for item in parsed:
        pieces += _tag(item) if isinstance(item, Delimiter) else [item]
    return pieces


def _tag(delimiter: Delimiter) -> list[Piece]:
    start, end, marker = delimiter.start, delimiter.end, delimiter.marker
    if not delimiter.role:
        return [Text(start, end)]
    opens = delimiter.role == "open"
    if marker == "*":
        return ["<em>", Text(start, end)] if opens else [Text(start, end), "</em>"]
    if marker == "~~":
        return [Marker(start, end, "strike"), "<s>"] if opens else ["</s>", Marker(start, end, "strike")]
    if marker == "**":
        return [Marker(start, end, "bold"), "<strong>"] if opens else ["</strong>", Marker(start, end, "bold")]
    if opens:
        return [Marker(start, start + 2, "bold"), "<strong><em>", Text(start + 2, end)]
    return [Text(start, start + 1), "</em></strong>", Marker(start + 1, end, "bold")]


_PARSERS: dict[str, Callable[[_Line, int], Parsed]] = {
    "`": _code,
    "\\": _backslash,
    "$": _dollar,
    "[": _link,
    "<": _address,
    "*": _delimiter,
    "~": _delimiter,
}
