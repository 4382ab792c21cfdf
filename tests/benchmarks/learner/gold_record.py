"""Reward term for programs of a benchmark: records the demo's hidden utility of all completions that it scores.

With weight 0 it changes no reward. A program that runs in this process leaves its completions in `RECORD`.
"""

from collections.abc import Sequence
from typing import NamedTuple

from training.demo.utility import utility
from training.learner.reward_terms import Answer

TERM = {"name": "python", "function": f"{__name__}:record", "weight": 0.0}


class Scored(NamedTuple):
    """A completion with its hidden utility, in points."""

    message: str
    text: str
    utility: float


RECORD: list[Scored] = []


def record(answers: Sequence[Answer]) -> list[float]:
    """Append the answers to `RECORD` in their order, and return their utilities."""
    scored = [scored_text(answer.row["messages"][-1]["content"], answer.text) for answer in answers]
    RECORD.extend(scored)
    return [one.utility for one in scored]


def scored_text(message: str, text: str) -> Scored:
    return Scored(message, text, utility(message, text))
