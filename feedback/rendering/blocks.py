"""Parser of Markdown blocks: headings, lists, quotations, tables, fenced code and formulas; the rest is paragraphs.

Models often write text that is not Markdown. So only unmistakable constructs count as markup. Everything else is kept
as written: line breaks, indentation, spaces between words, link definitions, HTML, underlining. Bullets and numbers
look as written. Blocks nest at most MAX_NESTING deep.
"""

import re
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

from feedback.rendering.highlighting import highlight
from feedback.rendering.inline import parse_inline
from feedback.rendering.mathematics import CLOSERS, MAX_FORMULA_LENGTH, accept_formula
from feedback.rendering.pieces import Document, Formula, Marker, Piece, Text

MAX_NESTING = 6

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
    """Offsets of a line in the source, without the markers of the lists and quotations around it."""

    start: int
    end: int


Rule = Callable[[int], int]  # parses the block that begins at a line; returns its number of lines, or 0


def parse_blocks(document: Document, start: int = 0, end: int | None = None) -> None:
    """Append the pieces of the source, or of a part of it, to the document. Raises TooComplex."""
    lines = []
    for text in document.source[start:end].split("\n"):
        lines.append(Line(start, start + len(text)))
        start += len(text) + 1
    _Blocks(document, lines, 0).parse()


class _Blocks:
    """Parser of one container: the text itself, a list item or a quotation."""

    def __init__(self, document: Document, lines: list[Line], level: int) -> None:
        self.document, self.source, self.lines, self.level = document, document.source, lines, level
        self.paragraph: list[Line] = []
        self.rules: list[Rule] = [self._fence, self._formula, self._table, self._heading, self._rule]
        if level < MAX_NESTING:
            self.rules += [self._quote, self._list]
        document.step(len(lines))

    def parse(self) -> None:
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
        """Append pieces of a block; an open paragraph ends before it."""
        self._end_paragraph()
        self.document.pieces += pieces

    def _end_paragraph(self) -> None:
        lines, self.paragraph = self.paragraph, []
        if not lines:
            return
        self.document.pieces.append("<p>")
        for index, line in enumerate(lines):
            if index:
                self.document.pieces.append("\n")
            self.document.pieces += parse_inline(self.document, *line)
        self.document.pieces.append("</p>\n")

    def _is_blank(self, index: int) -> bool:
        return not (0 <= index < len(self.lines)) or not self._text(index).strip()

    def _text(self, index: int) -> str:
        return self.source[slice(*self.lines[index])]

    def _indentation(self, index: int) -> int:
        start, end = self.lines[index]
        return _BLANKS.match(self.source, start, end).end() - start  # type: ignore[union-attr]

    def _heading(self, index: int) -> int:
        start, end = self.lines[index]
        marker = _HEADING.match(self.source, start, end)
        if not marker:
            return 0
        tag = f"h{len(marker[1])}"
        words = _BLANKS.match(self.source, marker.end(), end).end()  # type: ignore[union-attr]
        content = parse_inline(self.document, words, end)
        self._add(Marker(start, marker.end(), "heading"), f"<{tag}>", *content, f"</{tag}>\n")
        return 1

    def _rule(self, index: int) -> int:
        """Parse `---`, `***` or `___` between blank lines. Longer lines may be drawings or blanks to fill in."""
        if self._text(index).strip() not in _RULES or not self._is_blank(index - 1) or not self._is_blank(index + 1):
            return 0
        self._add(Marker(*self.lines[index], "rule"), "<hr>\n")
        return 1

    def _fence(self, index: int) -> int:
        start, end = self.lines[index]
        opener = _FENCE.match(self.source, start, end)
        if not opener:
            return 0
        last = self._closing(index, opener[1])
        lines = [self._dedent(line, opener.start(1) - start) for line in self.lines[index + 1 : last]]
        self._add(Marker(start, opener.end(1), "fence"))
        if opener[2].strip():
            self._add('<div class="language">', Text(opener.start(2), end), "</div>")
        self._add("<pre><code>", *self._highlighted(lines, opener[2].strip().lower()), "</code></pre>\n")
        if last < len(self.lines):
            self._add(Marker(*self.lines[last], "fence"))
        return last + 1 - index

    def _closing(self, index: int, fence: str) -> int:
        """Return the index of the line that closes the fence, or the number of lines if none does."""
        for last in range(index + 1, len(self.lines)):
            text = self._text(last).strip()
            if text.startswith(fence) and not text.strip(fence[0]):
                return last
        return len(self.lines)

    def _highlighted(self, lines: list[Line], language: str) -> list[Piece]:
        """Return the pieces of highlighted code. The highlighter reads the code without its container's indentation."""
        pieces: list[Piece] = []
        code = "\n".join(self.source[start:end] for start, end in lines)
        highlights = highlight(code, language, self.document.highlights_left)
        self.document.highlights_left -= len(highlights)
        spans = iter(highlights)
        begins, stops, kind = next(spans, (0, 0, ""))
        offset = 0  # of this line in the code
        for start, end in lines:
            position, length = 0, end - start
            while kind and begins < offset + length:
                first, last = max(begins - offset, position), min(stops - offset, length)
                if first > position:
                    pieces.append(Text(start + position, start + first))
                if last > first:
                    pieces += (f'<span class="{kind}">', Text(start + first, start + last), "</span>")
                position = max(last, position)
                if stops > offset + length:
                    break  # it goes on in the next line
                begins, stops, kind = next(spans, (0, 0, ""))
            if position < length:
                pieces.append(Text(start + position, end))
            pieces.append("\n")
            offset += length + 1
            while kind and stops <= offset:  # it ended with the line
                begins, stops, kind = next(spans, (0, 0, ""))
        return pieces

    def _formula(self, index: int) -> int:
        """Parse a formula from `$$` or `\\[` at the beginning of a line up to a line that ends with its closer."""
        start, end = self.lines[index]
        start += self._indentation(index)
        opener = self.source[start : min(start + 2, end)]
        if opener not in ("$$", "\\["):
            return 0
        last = self._last_of_formula(index, start + 2, opener)
        if last is None:
            return 0
        tex = "\n".join([self.source[start:end], *(self._text(number) for number in range(index + 1, last + 1))])
        tex = tex.strip()[2:-2]
        if not tex.strip() or not accept_formula(self.document, tex):
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
            # Another opener ends the search as well: otherwise many openers would each scan the same lines.
            if closer in text or opener in text or end - inside > MAX_FORMULA_LENGTH:
                return None
        return None

    def _quote(self, index: int) -> int:
        if not _QUOTE.match(self.source, *self.lines[index]):
            return 0
        lines: list[Line] = []
        self._add("<blockquote>\n")
        markers: list[Piece] = []
        for line in self.lines[index:]:
            marker = _QUOTED.match(self.source, *line)
            if not marker:
                break
            markers.append(Marker(*marker.span(1), "quote"))
            lines.append(Line(marker.end(), line.end))
        self._add(*markers)
        _Blocks(self.document, lines, self.level + 1).parse()
        self._add("</blockquote>\n")
        return len(lines)

    def _list(self, index: int) -> int:
        marker = _ITEM.match(self.source, *self.lines[index])
        if not marker:
            return 0
        kind, first = marker[2][-1], index
        self._add(_BULLETS[kind] + "\n")
        while marker and marker[2][-1] == kind:
            index = self._item(index, marker)
            following = index
            while following < len(self.lines) and self._is_blank(following):
                following += 1
            marker = _ITEM.match(self.source, *self.lines[following]) if following < len(self.lines) else None
            if marker and marker[2][-1] == kind:
                index = following
        self._add("</ol>\n" if kind in ".)" else "</ul>\n")
        return index - first

    def _item(self, index: int, marker: re.Match[str]) -> int:
        """Parse a list item with its indented lines; return the index of the line after it."""
        start, end = self.lines[index]
        content = min(marker.end(), marker.end(2) + 4)
        needed = len(marker[1]) + 2
        lines = [Line(content, end)]
        index += 1
        blank = 0
        while index + blank < len(self.lines):
            if self._is_blank(index + blank):
                blank += 1
                continue
            if self._indentation(index + blank) < needed:
                break
            for line in self.lines[index : index + blank + 1]:
                lines.append(self._dedent(line, content - start))
            index += blank + 1
            blank = 0
        number = f' value="{marker[2][:-1]}"' if marker[2][:-1] else ""
        self._add(Marker(*marker.span(2), "number" if number else "bullet"), f"<li{number}>\n")
        _Blocks(self.document, lines, self.level + 1).parse()
        self._add("</li>\n")
        return index

    def _dedent(self, line: Line, indentation: int) -> Line:
        """Return the line without its first `indentation` blanks, or without all its leading blanks if fewer."""
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
        self._add("</thead>\n<tbody>\n", Marker(*self.lines[index + 1], "table"))
        last = index + 2
        while last < len(self.lines) and "|" in self._text(last):
            self._row(last, "td", alignments)
            last += 1
        self._add("</tbody>\n</table>\n")
        return last - index

    def _row(self, index: int, tag: str, alignments: list[str]) -> None:
        """Parse a row. It may have more or fewer cells than the head: all are shown."""
        self._add("<tr>\n")
        position, end = self.lines[index]
        for number, cell in enumerate(self._cells(index)):
            self.document.step()
            alignment = alignments[number] if number < len(alignments) else ""
            if position < cell.start:
                self._add(Marker(position, cell.start, "table"))
            self._add(f"<{tag}{alignment}>", *parse_inline(self.document, *cell), f"</{tag}>\n")
            position = cell.end
        self._add(Marker(position, end, "table"), "</tr>\n")

    def _cells(self, index: int) -> list[Line]:
        """Return the row's cells without the blanks around them. A bar after a backslash does not divide cells."""
        start, end = self.lines[index]
        bars = [match.start() for match in _BAR.finditer(self.source, start, end) if match[0] == "|"]
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
