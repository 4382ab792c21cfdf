"""Pieces of a parsed text, in the order of display: HTML tags, visible text, formulas and hidden markers.

Text, Formula and Marker pieces together cover every non-blank character of the source exactly once. Text and Formula
pieces are in the order of the source. So nothing disappears except markers of known kinds, and the source of each
visible character is known exactly.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

# Work limit of one text: lines (counted once per level of nesting) plus constructs. A step takes at most 20 µs.
MAX_STEPS = 2_500
MAX_HIGHLIGHTS = 2_000  # highlighted words of a text; code beyond them is not highlighted


class Text(NamedTuple):
    """Characters start … end − 1 of the source, visible as written."""

    start: int
    end: int


class Formula(NamedTuple):
    """A formula: characters start … end − 1 of the source, delimiters included; visible as one unit."""

    start: int
    end: int
    tex: str
    is_display: bool


class Marker(NamedTuple):
    """Markup that is not visible itself, such as `**`, a bullet or the bars of a table."""

    start: int
    end: int
    kind: str


Piece = str | Text | Formula | Marker


class TooComplex(Exception):
    """The text needs more than MAX_STEPS and is shown as plain text."""


@dataclass
class Document:
    """The source, its pieces so far, and the work spent on them."""

    source: str
    has_controls: bool = False
    pieces: list[Piece] = field(default_factory=list)
    steps: int = 0
    formula_characters: int = 0
    highlights_left: int = MAX_HIGHLIGHTS

    def step(self, count: int = 1) -> None:
        """Count work. Raises TooComplex when the limit is passed."""
        self.steps += count
        if self.steps > MAX_STEPS:
            raise TooComplex
