"""Markdown of whole lines: headings, lists, quotations, tables, code between fences, formulas. The rest is paragraphs.

What models write is often not Markdown, so a construct must be unmistakable, and whatever else stands there is kept as
it is written: line breaks, blanks at the beginning of lines and between words, link definitions, HTML, underlining.
Bullets look as they were written and numbers are those that were written. Nested at most MOST_LEVELS deep.
"""

import re
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

from feedback.rendering.code import colours
from feedback.rendering.inline import inline
from feedback.rendering.mathematics import CLOSERS, LONGEST, may_set
from feedback.rendering.pieces import Formula, Hidden, Page, Piece, Shown

MOST_LEVELS = 6

_BLANKS = re.compile(r"[ \t]*+")
_FENCE = re.compile(r"[ \t]*+(`{3,}+|~{3,}+)[ \t]*+([^`]*+)\Z")
_HEADING = re.compile(r"(#{1,6})(?=[ \t]+\S)")
_QUOTE = re.compile(r">(?:[ \t]|\Z)")
_QUOTED = re.compile(r"(>)[ \t]?")
_ITEM = re.compile(r"([ \t]{0,3})([-*+]|(?:0|[1-9][0-9]{0,8})[.)])[ \t]++(?![-*_+ \t]*+\Z)")
_DELIMITERS = re.compile(r"[ \t]*+\|?+[ \t]*+:?+-++:?+[ \t]*+(?:\|[ \t]*+:?+-++:?+[ \t]*+)*+\|?+[ \t]*+\Z")
_BAR = re.compile(r"\\.|\|")
_RULES = ("---", "***", "___")
_BULLETS = {"-": '<ul class="dash">', "+": '<ul class="plus">', "*": "<ul>", ".": "<ol>", ")": '<ol class="paren">'}


class Line(NamedTuple):
    """A line's characters in the source, without the markers of the lists and quotations that it stands in."""

    start: int
    end: int


Rule = Callable[[int], int]  # reads the block that begins at a line; how many lines it has, or 0


def read(page: Page) -> None:
    """Fill the page's pieces. Raises TooMuch."""
    lines, start = [], 0
    for text in page.source.split("\n"):
        lines.append(Line(start, start + len(text)))
        start += len(text) + 1
    _Blocks(page, lines, 0).read()


class _Blocks:
    """The blocks of one container: the text itself, a list's item or a quotation."""

    def __init__(self, page: Page, lines: list[Line], level: int) -> None:
        self.page, self.source, self.lines, self.level = page, page.source, lines, level
        self.paragraph: list[Line] = []
        self.rules: list[Rule] = [self._fence, self._formula, self._table, self._heading, self._rule]
        if level < MOST_LEVELS:
            self.rules += [self._quote, self._list]
        page.step(len(lines))

    def read(self) -> None:
        index = 0
        while index < len(self.lines):
            if self._is_blank(index):
                self._end_paragraph()
                index += 1
                continue
            used = next(filter(None, (rule(index) for rule in self.rules)), 0)
            if not used:
                self.paragraph.append(self.lines[index])
            index += used or 1
        self._end_paragraph()

    def _add(self, *pieces: Piece) -> None:
        """Add to a block other than a paragraph, which ends before it."""
        self._end_paragraph()
        self.page.pieces += pieces

    def _end_paragraph(self) -> None:
        lines, self.paragraph = self.paragraph, []
        if not lines:
            return
        self.page.pieces.append("<p>")
        for index, line in enumerate(lines):
            if index:
                self.page.pieces.append("\n")
            self.page.pieces += inline(self.page, *line)
        self.page.pieces.append("</p>\n")

    def _is_blank(self, index: int) -> bool:
        return not (0 <= index < len(self.lines)) or not self._text(index).strip()

    def _text(self, index: int) -> str:
        return self.source[slice(*self.lines[index])]

    def _indentation(self, index: int) -> int:
        start, end = self.lines[index]
        return _BLANKS.match(self.source, start, end).end() - start  # type: ignore[union-attr]

    def _heading(self, index: int) -> int:
        start, end = self.lines[index]
        found = _HEADING.match(self.source, start, end)
        if not found:
            return 0
        tag = f"h{len(found[1])}"
        words = _BLANKS.match(self.source, found.end(), end).end()  # type: ignore[union-attr]
        self._add(Hidden(start, found.end(), "heading"), f"<{tag}>", *inline(self.page, words, end), f"</{tag}>\n")
        return 1

    def _rule(self, index: int) -> int:
        """Three dashes, asterisks or underscores between blank lines. Longer ones may be drawn, or to be filled in."""
        if self._text(index).strip() not in _RULES or not self._is_blank(index - 1) or not self._is_blank(index + 1):
            return 0
        self._add(Hidden(*self.lines[index], "rule"), "<hr>\n")
        return 1

    def _fence(self, index: int) -> int:
        start, end = self.lines[index]
        opener = _FENCE.match(self.source, start, end)
        if not opener:
            return 0
        last = self._closing(index, opener[1])
        lines = [self._without(line, opener.start(1) - start) for line in self.lines[index + 1 : last]]
        self._add(Hidden(start, opener.end(1), "fence"))
        if opener[2].strip():
            self._add('<div class="language">', Shown(opener.start(2), end), "</div>")
        self._add("<pre><code>", *self._coloured(lines, opener[2].strip().lower()), "</code></pre>\n")
        if last < len(self.lines):
            self._add(Hidden(*self.lines[last], "fence"))
        return last + 1 - index

    def _closing(self, index: int, fence: str) -> int:
        """The line that closes the fence, or the number of lines when nothing does."""
        for last in range(index + 1, len(self.lines)):
            text = self._text(last).strip()
            if text.startswith(fence) and not text.strip(fence[0]):
                return last
        return len(self.lines)

    def _coloured(self, lines: list[Line], language: str) -> list[Piece]:
        """Code with its colours. These are found in the code without indentation of its container, line by line."""
        pieces: list[Piece] = []
        code = "\n".join(self.source[start:end] for start, end in lines)
        found = colours(code, language, self.page.colours_left)
        self.page.colours_left -= len(found)
        spans = iter(found)
        begins, stops, kind = next(spans, (0, 0, ""))
        offset = 0  # in the code, of this line
        for start, end in lines:
            position, length = 0, end - start
            while kind and begins < offset + length:
                first, last = max(begins - offset, position), min(stops - offset, length)
                if first > position:
                    pieces.append(Shown(start + position, start + first))
                if last > first:
                    pieces += (f'<span class="{kind}">', Shown(start + first, start + last), "</span>")
                position = max(last, position)
                if stops > offset + length:
                    break  # it goes on in the next line
                begins, stops, kind = next(spans, (0, 0, ""))
            if position < length:
                pieces.append(Shown(start + position, end))
            pieces.append("\n")
            offset += length + 1
            while kind and stops <= offset:  # it ended with the line
                begins, stops, kind = next(spans, (0, 0, ""))
        return pieces

    def _formula(self, index: int) -> int:
        """`$$` or `\\[` at a line's beginning, up to a line that its closer ends."""
        start, end = self.lines[index]
        start += self._indentation(index)
        opener = self.source[start : min(start + 2, end)]
        if opener not in ("$$", "\\["):
            return 0
        last = self._last_of_formula(index, start + 2, opener)
        if last is None:
            return 0
        tex = "\n".join([self.source[start:end], *(self._text(each) for each in range(index + 1, last + 1))])
        tex = tex.strip()[2:-2]
        if not tex.strip() or not may_set(self.page, tex):
            return 0
        self._add("<p>", Formula(start, self.lines[last].end, tex, True), "</p>\n")
        return last + 1 - index

    def _last_of_formula(self, index: int, inside: int, opener: str) -> int | None:
        closer = CLOSERS[opener]
        for last in range(index, len(self.lines)):
            start, end = self.lines[last]
            text = self.source[inside if last == index else start : end]
            if text.rstrip().endswith(closer):
                return last
            # Another opener ends the search too, so that every line is looked at once.
            if closer in text or opener in text or end - inside > LONGEST:
                return None
        return None

    def _quote(self, index: int) -> int:
        if not _QUOTE.match(self.source, *self.lines[index]):
            return 0
        lines: list[Line] = []
        self._add("<blockquote>\n")
        markers: list[Piece] = []
        for line in self.lines[index:]:
            found = _QUOTED.match(self.source, *line)
            if not found:
                break
            markers.append(Hidden(*found.span(1), "quote"))
            lines.append(Line(found.end(), line.end))
        self._add(*markers)
        _Blocks(self.page, lines, self.level + 1).read()
        self._add("</blockquote>\n")
        return len(lines)

    def _list(self, index: int) -> int:
        found = _ITEM.match(self.source, *self.lines[index])
        if not found:
            return 0
        kind, first = found[2][-1], index
        self._add(_BULLETS[kind] + "\n")
        while found and found[2][-1] == kind:
            index = self._item(index, found)
            following = index
            while following < len(self.lines) and self._is_blank(following):
                following += 1
            found = _ITEM.match(self.source, *self.lines[following]) if following < len(self.lines) else None
            if found and found[2][-1] == kind:
                index = following
        self._add("</ol>\n" if kind in ".)" else "</ul>\n")
        return index - first

    def _item(self, index: int, found: re.Match[str]) -> int:
        """Read an item of a list; returns the line behind it. Lines that are indented belong to it."""
        start, end = self.lines[index]
        content = min(found.end(), found.end(2) + 4)
        needed = len(found[1]) + 2
        lines = [Line(content, end)]
        index += 1
        blank = 0
        while index + blank < len(self.lines):
            if self._is_blank(index + blank):
                blank += 1
                continue
            if self._indentation(index + blank) < needed:
                break
            for each in self.lines[index : index + blank + 1]:
                lines.append(self._without(each, content - start))
            index += blank + 1
            blank = 0
        number = f' value="{found[2][:-1]}"' if found[2][:-1] else ""
        self._add(Hidden(*found.span(2), "number" if number else "bullet"), f"<li{number}>\n")
        _Blocks(self.page, lines, self.level + 1).read()
        self._add("</li>\n")
        return index

    def _without(self, line: Line, indentation: int) -> Line:
        """The line without so many blanks at its beginning, or as many as it has."""
        blanks = _BLANKS.match(self.source, *line).end() - line.start  # type: ignore[union-attr]
        return Line(line.start + min(blanks, indentation), line.end)

    def _table(self, index: int) -> int:
        if index + 1 >= len(self.lines) or "|" not in self._text(index) or "|" not in self._text(index + 1):
            return 0
        if not _DELIMITERS.match(self.source, *self.lines[index + 1]):
            return 0
        rule = self._cells(index + 1)
        if len(self._cells(index)) != len(rule):
            return 0
        alignments = [_alignment(self.source[slice(*cell)]) for cell in rule]
        self._add("<table>\n<thead>\n")
        self._row(index, "th", alignments)
        self._add("</thead>\n<tbody>\n", Hidden(*self.lines[index + 1], "table"))
        last = index + 2
        while last < len(self.lines) and "|" in self._text(last):
            self._row(last, "td", alignments)
            last += 1
        self._add("</tbody>\n</table>\n")
        return last - index

    def _row(self, index: int, tag: str, alignments: list[str]) -> None:
        """A row has the cells that are written, be they more or fewer than the head's."""
        self._add("<tr>\n")
        position, end = self.lines[index]
        for number, cell in enumerate(self._cells(index)):
            self.page.step()
            alignment = alignments[number] if number < len(alignments) else ""
            if position < cell.start:
                self._add(Hidden(position, cell.start, "table"))
            self._add(f"<{tag}{alignment}>", *inline(self.page, *cell), f"</{tag}>\n")
            position = cell.end
        self._add(Hidden(position, end, "table"), "</tr>\n")

    def _cells(self, index: int) -> list[Line]:
        """The cells between a row's bars, without the blanks around them. A bar behind a backslash is no border."""
        start, end = self.lines[index]
        bars = [found.start() for found in _BAR.finditer(self.source, start, end) if found[0] == "|"]
        edges = [start - 1, *bars, end]
        cells = [self._trimmed(before + 1, after) for before, after in pairwise(edges)]
        if bars and cells[0].start == cells[0].end:
            del cells[0]
        if bars and cells and cells[-1].start == cells[-1].end:
            del cells[-1]
        return cells

    def _trimmed(self, start: int, end: int) -> Line:
        text = self.source[start:end]
        start += len(text) - len(text.lstrip(" \t"))
        return Line(start, max(start, start + len(text.strip(" \t"))))


def _alignment(cell: str) -> str:
    if not cell.endswith(":"):
        return ""
    return ' class="center"' if cell.startswith(":") else ' class="right"'
