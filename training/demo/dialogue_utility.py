"""Hidden utility of a dialogue of the demo, computed from its texts alone. See `utility` for what it is used for.

The support must ask for the number of the order in its first turn, and answer with it in its last one. Only sentences
of the grammar earn points, so a list of keywords earns nothing.
"""

import re
from functools import cache
from typing import NamedTuple

from training.demo.grammar import dialogues, vocabulary
from training.demo.grammar.dialogues import Turns

LONG_TURN = 3  # sentences; each further one costs half a point


class Sentence(NamedTuple):
    """A sentence, its kind ("" if the grammar cannot say it), the issue that it answers, and the numbers in it."""

    text: str
    kind: str
    issue: str
    numbers: tuple[str, ...]


def utility(message: str, turns: Turns) -> float:
    """Return the points of a dialogue that answers a message, at most 6 (perfect)."""
    spoken = [turn["content"] for turn in turns if turn["role"] == "assistant"]
    number = "".join(_numbers(" ".join(turn["content"] for turn in turns if turn["role"] == "user")))
    first, *later = [_sentences(text) for text in spoken]
    return (
        _first_turn(first)
        + (_last_turn(later[-1], issue_of(message), number) if later else 0.0)
        + sum(_manners(sentences) + _faults(sentences) for sentences in (first, *later))
    )


def issue_of(message: str) -> str:
    """Return what a customer's first message is about; "" for a message that the grammar cannot say."""
    return next((issue for issue, opening in _openings() if opening in _masked(message)), "")


def _first_turn(sentences: list[Sentence]) -> float:
    """Return 2 points for the question, less 1 for an answer before the order is known."""
    asks = any(sentence.kind == "ask" for sentence in sentences)
    return 2.0 * asks - 1.0 * any(sentence.kind in ("answer", "promise") for sentence in sentences)


def _last_turn(sentences: list[Sentence], issue: str, number: str) -> float:
    """Return 3 points for an answer with the number, half a point for one without; −2 for another number."""
    answers = [sentence for sentence in sentences if sentence.kind == "answer"]
    if any(sentence.numbers != (number,) for sentence in answers):
        return -2.0
    right = any(sentence.issue == issue for sentence in answers)
    promised = any(sentence.kind == "promise" and sentence.issue == issue for sentence in sentences)
    asks_again = any(sentence.kind == "ask" for sentence in sentences)
    return 3.0 * right + 0.5 * (promised and not right) - 1.0 * asks_again


def _manners(sentences: list[Sentence]) -> float:
    kinds = [sentence.kind for sentence in sentences]
    return 0.5 * ("courtesy" in kinds) - 2.0 * kinds.count("rude")


def _faults(sentences: list[Sentence]) -> float:
    """Return −1 for each sentence that the grammar cannot say or that repeats another, and less for a long turn."""
    unknown = sum(sentence.kind == "" for sentence in sentences)
    repeated = len(sentences) - len(set(sentences))
    return -1.0 * max(unknown, int(not sentences)) - repeated - 0.5 * max(0, len(sentences) - LONG_TURN)


def _sentences(text: str) -> list[Sentence]:
    parts = [part for part in re.split(r"(?<=[.!?])\s+", text.strip()) if part]
    return [Sentence(part, *_known().get(_masked(part), ("", "")), _numbers(part)) for part in parts]


def _numbers(text: str) -> tuple[str, ...]:
    return tuple(re.findall(r"\d+", text))


def _masked(text: str) -> str:
    text = re.sub(r"\d+", "{number}", text)
    text = re.sub(rf"\b({'|'.join(map(re.escape, dialogues.WHEN))})(?=\.)", "{when}", text)
    return re.sub(rf"\b({'|'.join(map(re.escape, vocabulary().products))})\b", "{product}", text)


@cache
def _known() -> dict[str, tuple[str, str]]:
    """Return the kind and the issue of every sentence of the support."""
    kinds = {"ask": dialogues.ASKING, "courtesy": dialogues.COURTESIES}
    kinds |= {"evasion": dialogues.EVASIONS, "rude": dialogues.RUDE}
    known = {phrase: (kind, "") for kind, phrases in kinds.items() for phrase in phrases}
    for kind, table in (("answer", dialogues.ANSWERS), ("promise", dialogues.PROMISES)):
        known |= {phrase: (kind, issue) for issue, phrases in table.items() for phrase in phrases}
    return known


@cache
def _openings() -> list[tuple[str, str]]:
    return [(issue, opening) for issue, openings in dialogues.OPENINGS.items() for opening in openings]
