"""A text in pieces, in the order of the page: HTML tags, characters that are shown, and markers that are not.

Shown, Formula and Hidden pieces together cover every non-blank character of the source exactly once, and what is shown
is in the source's order. So nothing disappears unless a marker of a known kind says so, and where each character on
screen comes from is exact.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

# Work allowed for one text: lines read (once for each level of nesting) plus constructs found. At most 20 µs each.
MOST_STEPS = 2_500
MOST_COLOURS = 2_000  # coloured words of code; beyond, code is shown without colours


class Shown(NamedTuple):
    """Characters start … end − 1 of the source, shown as they are written."""

    start: int
    end: int


class Formula(NamedTuple):
    """TeX, shown as one thing for the characters start … end − 1, delimiters included."""

    start: int
    end: int
    tex: str
    is_display: bool


class Hidden(NamedTuple):
    """A marker that is not shown, since what it marks looks different: bold, a bullet, a table's bars."""

    start: int
    end: int
    kind: str


Piece = str | Shown | Formula | Hidden


class TooMuch(Exception):
    """The text needs more than MOST_STEPS; it is shown as plain text instead."""


@dataclass
class Page:
    """The source and its pieces so far, with the work spent on them."""

    source: str
    has_controls: bool = False
    pieces: list[Piece] = field(default_factory=list)
    steps: int = 0
    formula_characters: int = 0
    colours_left: int = MOST_COLOURS

    def step(self, count: int = 1) -> None:
        self.steps += count
        if self.steps > MOST_STEPS:
            raise TooMuch
