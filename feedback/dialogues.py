"""Completions of several turns: their form, their text, and their digest.

A completion of several turns begins and ends with the assistant, and the user answers in between. Its `turns` are
messages. Its `text` is derived from them: each turn under a line with its role. Only `turns` hold the speakers, so a
turn that imitates such a line remains one turn.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import NamedTuple

Turns = list[dict[str, str]]

HEADINGS = {"assistant": "Assistant:\n", "user": "User:\n"}
BETWEEN = "\n\n"
MIN_TURNS = 3  # assistant, user, assistant; a single turn is a text


class Answer(NamedTuple):
    """A completion as people and models read it."""

    text: str
    turns: Turns | None = None  # None: one turn, the text


def text_of(turns: Turns) -> str:
    """Return the text of a completion of several turns."""
    return BETWEEN.join(HEADINGS[turn["role"]] + turn["content"] for turn in turns)


def contents(turns: Turns) -> Iterator[tuple[int, str]]:
    """Yield where each turn's content begins in the text, and the content."""
    start = 0
    for turn in turns:
        start += len(HEADINGS[turn["role"]])
        yield start, turn["content"]
        start += len(turn["content"]) + len(BETWEEN)


def last_turn(answer: Answer) -> str:
    """Return the text of an answer's last turn."""
    return answer.text if answer.turns is None else answer.turns[-1]["content"]


def with_last_turn(turns: Turns, content: str) -> Turns:
    """Return the turns of a dialogue with another last turn."""
    return [*turns[:-1], {"role": "assistant", "content": content}]


def digest_of(turns: Turns) -> str:
    """Return the SHA-256 that identifies the turns. No text has the same one, since no text contains a NUL."""
    canonical = json.dumps(turns, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(b"turns\0" + canonical.encode()).hexdigest()


def visible_key(answer: Answer) -> tuple[str, ...]:
    """Return the visible part of an answer: white space at the end of a text is invisible."""
    if answer.turns is None:
        return (answer.text.rstrip(),)
    return tuple(part for turn in answer.turns for part in (turn["role"], turn["content"].rstrip()))


def answer_of(text: str, turns: str | None) -> Answer:
    """Return the answer of a database row; `turns` are JSON."""
    return Answer(text, None if turns is None else json.loads(turns))


def turns_of(answers: Sequence[Answer]) -> list[Turns | None]:
    """Return the turns of each answer; None for a text."""
    return [answer.turns for answer in answers]
