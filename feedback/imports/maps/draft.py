"""A row of a file as a map reads it: on its way, and mapped."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from feedback.imports.maps import values
from feedback.imports.maps.conversations import Message
from feedback.imports.maps.description import Map
from feedback.imports.maps.values import needed
from feedback.imports.rows import PromptRow


@dataclass(frozen=True)
class RowJudgement:
    """A judgement of the completions of a row, aligned with them."""

    ranks: list[int]  # dense; empty for a skip
    judge: str  # as the file names them; "": it does not
    seconds: float = 0.0  # 0: unknown
    made_at: datetime | None = None
    strength: int | None = None
    ratings: dict[str, list[int | None]] = field(default_factory=dict)
    flags: list[str] = field(default_factory=list)
    spans: list[dict[str, Any]] = field(default_factory=list)
    comment: str = ""
    display_order: list[int] | None = None  # None: unknown
    is_skip: bool = False
    is_gold: bool = False


@dataclass(frozen=True)
class MappedRow:
    """A prompt with its completions, and one judgement of them or none."""

    prompt: PromptRow
    judgement: RowJudgement | None
    left_out: tuple[str, ...] = ()  # what the row has and the product cannot hold, such as "strength"
    passed_over: bool = False  # the row takes an earlier one back, so nothing is imported


@dataclass
class Draft:
    """A row on its way: messages, completions, and what the file says of each completion."""

    messages: list[Message]
    prompt: dict[str, Any]  # the other values of the prompt
    completions: list[dict[str, Any]]
    scores: list[float] = field(default_factory=list)  # higher is better; aligned, or empty
    labels: list[bool] = field(default_factory=list)
    ratings: dict[str, list[int | None]] = field(default_factory=dict)

    def add(self, other: "Draft") -> None:
        """Take the completions of a neighbouring row of the same prompt, too."""
        before, more = len(self.completions), len(other.completions)
        for name in {*self.ratings, *other.ratings}:
            mine = self.ratings.get(name, [None] * before)
            self.ratings[name] = mine + other.ratings.get(name, [None] * more)
        self.completions += other.completions
        self.scores += other.scores
        self.labels += other.labels


def items_of(row: Mapping[str, Any], made: Map) -> list[Any]:
    """Return the items of the row's list of completions; an empty list if they are in columns."""
    path = made.completions.list
    return values.as_list(needed(row, path), path) if path else []
