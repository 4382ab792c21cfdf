"""Held-out rankings of a reward model's job directory, with what the model says of them."""

from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

from training.learner.runtime.jobdir import JobDirectory

SCORED = "scored_rankings.jsonl"

Row = dict[str, Any]


class HeldOutPair(NamedTuple):
    """Two completions of a held-out ranking, of which the annotator prefers one."""

    prompt_id: int
    comparison_id: int
    ranking_id: int
    preferred: int  # position in the comparison
    other: int
    log_odds: float  # of the annotator's choice by the model, given no tie
    longer_by: int  # characters by which the preferred one is longer
    strength: int | None  # of the ranking
    ranking_has_ties: bool
    flags: tuple[str, ...]  # of the ranking


class ScoredCompletion(NamedTuple):
    """A completion of a held-out ranking with its normalised score."""

    completion_id: int
    source: str
    score: float


class HeldOut(NamedTuple):
    """The held-out rankings that the model scored. Lists are in the order of the record."""

    rankings: list[Row]  # rows of rankings.jsonl without texts
    pairs: list[HeldOutPair]
    completions: list[ScoredCompletion]  # without repetition
    tied: list[float]  # of each pair that the annotator tied: the model's probability of a tie
    tie_probabilities: float  # sum over all pairs, tied or not


class Surprise(NamedTuple):
    """A ranking and how strongly other rankings contradict it."""

    ranking_id: int
    value: float  # nats


def read(directory: Path) -> tuple[HeldOut, list[Surprise]]:
    """Return the held-out rankings, and the surprise of all rankings that have one. Reads both files once."""
    held_out = HeldOut([], [], [], [], 0.0)
    surprises: list[Surprise] = []
    completions: dict[int, ScoredCompletion] = {}
    ties = 0.0
    for row, scored in _scored_rows(directory):
        if "surprise" in scored:
            surprises.append(Surprise(row["ranking_id"], scored["surprise"]))
        if "scores" not in scored:
            continue
        held_out.rankings.append({name: value for name, value in row.items() if name not in ("messages", "turns")})
        columns = zip(row["completion_ids"], row["sources"], scored["scores"], strict=True)
        completions |= {pk: ScoredCompletion(pk, source, score) for pk, source, score in columns}
        held_out.pairs.extend(_pairs(row, scored))
        held_out.tied.extend(_ties(row, scored))
        ties += sum(scored["ties"])
    return held_out._replace(completions=list(completions.values()), tie_probabilities=ties), surprises


def _scored_rows(directory: Path) -> Iterator[tuple[Row, Row]]:
    """Yield the rows of rankings.jsonl that have a line in scored_rankings.jsonl, with that line."""
    files = JobDirectory(directory, is_writer=False)
    scored = files.rows(SCORED)
    line = next(scored, None)
    for number, row in enumerate(files.rows("rankings.jsonl"), 1):
        if line is not None and line["row"] == number:
            yield row, line
            line = next(scored, None)


def _pairs(row: Row, scored: Row) -> Iterator[HeldOutPair]:
    ranks, lengths = row["ranks"], [len(text) for text in row["completions"]]
    has_ties = len(set(ranks)) < len(ranks)
    for (i, j), odds in zip(combinations(range(len(ranks)), 2), scored["log_odds"], strict=True):
        if ranks[i] != ranks[j]:
            preferred, other = (i, j) if ranks[i] < ranks[j] else (j, i)
            yield HeldOutPair(
                row["prompt_id"],
                row["comparison_id"],
                row["ranking_id"],
                preferred,
                other,
                odds if preferred == i else -odds,
                lengths[preferred] - lengths[other],
                row["strength"],
                has_ties,
                tuple(row["flags"]),
            )


def _ties(row: Row, scored: Row) -> Iterator[float]:
    for (i, j), probability in zip(combinations(range(len(row["ranks"])), 2), scored["ties"], strict=True):
        if row["ranks"][i] == row["ranks"][j]:
            yield probability
