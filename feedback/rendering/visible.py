"""Where in a text each character stands that a page shows of it.

Visible characters are counted without white space, which Markdown, HTML and browsers rearrange; what is shown as one
thing (an image's name, a formula, a control made visible) counts as one character. `rank/visible.js` counts the same
way in the browser. The places come from the parser itself: each of its rules is wrapped, and notes from where to
where in the source it read what it made.
"""

from array import array
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from markdown_it import MarkdownIt
from markdown_it.rules_block import StateBlock
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token

from feedback.rendering import html

ATOM = "\ufffc"  # stands for a thing that is shown as one
SPACES = frozenset(
    " \t\n\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"
)

Placed = Iterator[tuple[str, int, int]]  # a character, and the source's characters that it is shown for: start, end


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
    source = html.with_line_feeds(text)
    shown, starts, ends = _plain(source) if html.is_long(source) else _rendered(source)
    if len(source) != len(text):
        starts, ends = _before_line_feeds(text, starts, ends)
    return Visible(html.without_controls(shown, ATOM), starts, ends)


def _before_line_feeds(text: str, starts: Sequence[int], ends: Sequence[int]) -> tuple[array, array]:
    """The places in a text whose CR LF were read as LF."""
    raw = [index for index in range(len(text)) if text[index : index + 2] != "\r\n"]
    return array("q", (raw[each] for each in starts)), array("q", (raw[each - 1] + 1 for each in ends))


def _plain(source: str) -> Visible:
    starts = array("q", (index for index, character in enumerate(source) if character not in SPACES))
    shown = "".join(character for character in source if character not in SPACES)
    return Visible(shown, starts, array("q", (start + 1 for start in starts)))


def _rendered(source: str) -> Visible:
    placed = [each for each in _markdown(source) if each[0] not in SPACES]
    shown = "".join(character for character, _start, _end in placed)
    return Visible(shown, [start for _character, start, _end in placed], [end for _character, _start, end in placed])


def _markdown(source: str) -> Placed:
    columns: dict[int, Iterator[list[int]]] = {}  # of the table rows met, by the row's first character
    for token in _parser().parse(source):
        if token.type in ("fence", "code_block"):
            yield from _code(source, token)
        elif token.type == "math_block":
            lines = token.meta["lines"]
            yield ATOM, lines[0][0], lines[-1][1]
        elif token.type == "inline":
            places = (
                _cell(source, token, columns)
                if "row" in token.meta
                else _lines(source, token.content, token.meta["lines"])
            )
            yield from _inline(token, places)


def _code(source: str, token: Token) -> Placed:
    lines = token.meta["lines"][token.type == "fence" :]  # a fence's first line is no code
    for line, (start, _end) in zip(token.content.split("\n"), lines, strict=False):
        shown = line.lstrip(" \t")
        at = source.find(shown, start)
        yield from ((character, at + index, at + index + 1) for index, character in enumerate(shown))


def _lines(source: str, content: str, lines: Sequence[tuple[int, int]]) -> list[int]:
    """Where each character of a paragraph or heading stands: its lines lost only indentation and markers."""
    places: list[int] = []
    for line, (start, _end) in zip(content.split("\n"), lines, strict=False):
        shown = line.lstrip(" \t")
        at = source.find(shown, start)
        places += range(at - (len(line) - len(shown)), at + len(shown) + 1)  # and the line's end
    return places


def _cell(source: str, token: Token, columns: dict[int, Iterator[list[int]]]) -> list[int]:
    """As `_lines`, for a table's cell, in which an escaped bar is one character."""
    start, end = token.meta["lines"][0]
    row = columns.setdefault(start, iter(_columns(source, start, end)))
    return next(row, [])


def _columns(source: str, start: int, end: int) -> list[list[int]]:
    """The places of the characters of each of a row's cells, trimmed. The cells are split as the parser does it."""
    cells: list[list[int]] = [[]]
    for index in range(start, end):
        escaped = index > start and source[index - 1] == "\\"
        if source[index] == "|" and not escaped:
            cells.append([])
            continue
        if source[index] == "|":
            cells[-1].pop()
        cells[-1].append(index)
    trimmed = [_trimmed(source, cell) for cell in cells]
    return trimmed[bool(not source[start:end].strip().partition("|")[0]) :]


def _trimmed(source: str, places: list[int]) -> list[int]:
    filled = [index for index, place in enumerate(places) if source[place] not in SPACES]
    return places[filled[0] : filled[-1] + 1] if filled else []


def _inline(token: Token, places: Sequence[int]) -> Placed:
    for child in token.children or ():
        start, end = child.meta.get("source", (0, 0))
        if child.type in ("image", "math_inline"):
            yield ATOM, places[start], places[end - 1] + 1
        elif child.type == "code_inline":
            yield from _written_out(token.content, child, start, end, places)
        elif end - start == len(child.content) and child.type == "text":
            yield from (
                (character, places[start + index], places[start + index] + 1)
                for index, character in enumerate(child.content)
            )
        else:  # what was an entity, or an escape: each of its characters is shown for the whole
            yield from ((character, places[start], places[end - 1] + 1) for character in child.content)


def _written_out(content: str, child: Token, start: int, end: int, places: Sequence[int]) -> Placed:
    """Code between backticks: its characters as they are, but for white space."""
    inside = range(start + len(child.markup), end - len(child.markup))
    return ((content[index], places[index], places[index] + 1) for index in inside)


@lru_cache(maxsize=1)
def _parser() -> MarkdownIt:
    """The parser that pages are rendered with; its tokens also say where they come from, and are not joined."""
    parser = html.markdown()
    parser.core.ruler.disable("text_join")
    parser.inline.ruler2.disable("fragments_join")
    parser.inline.ruler.push("character", _character)
    _wrap(parser.inline.ruler, _noting_characters)
    _wrap(parser.block.ruler, _noting_lines)
    return parser


def _wrap(ruler: Any, wrapper: Callable) -> None:
    for rule in ruler.__rules__:
        rule.fn = wrapper(rule.fn)
    ruler.__cache__ = None


def _noting_characters(rule: Callable[[StateInline, bool], bool]) -> Callable[[StateInline, bool], bool]:
    def noting(state: StateInline, silent: bool) -> bool:
        start, before = state.pos, len(state.tokens)
        if not rule(state, silent):
            return False
        if not silent:
            if state.pending:
                state.pushPending()
            for token in state.tokens[before:]:
                start = _place(token, state, start)
        return True

    return noting


def _character(state: StateInline, silent: bool) -> bool:
    """What no other rule wants, which the parser would add to the text without asking any."""
    if not silent:
        state.pending += state.src[state.pos]
    state.pos += 1
    return True


def _place(token: Token, state: StateInline, start: int) -> int:
    """Note where the token comes from, unless a rule inside has; returns where the next one begins."""
    if "source" not in token.meta:
        at = state.src.find(token.content, start, state.pos) if token.type == "text" and token.content else -1
        token.meta["source"] = (start, state.pos) if at < 0 else (at, at + len(token.content))
        return start if at < 0 else at + len(token.content)
    return token.meta["source"][1]


def _noting_lines(rule: Callable[..., bool]) -> Callable[..., bool]:
    def noting(state: StateBlock, start_line: int, end_line: int, silent: bool) -> bool:
        before = len(state.tokens)
        if not rule(state, start_line, end_line, silent):
            return False
        for token in state.tokens[before:]:
            if token.map and "lines" not in token.meta:
                # Read at once: a quotation around this moves the marks back when it ends.
                starts = [state.bMarks[line] + state.tShift[line] for line in range(*token.map)]
                token.meta["lines"] = list(zip(starts, state.eMarks[token.map[0] : token.map[1]], strict=True))
                if rule.__name__ == "table":
                    token.meta["row"] = True
        return True

    return noting
