"""scored_rankings.jsonl: single rankings as the reward model and the cross-fitted heads see them.

    {"row": 7, "split": "held_out", "scores": [0.3, -1.2], "log_odds": [2.1], "ties": [0.04], "surprise": -1.3}
    {"row": 8, "split": "train", "surprise": 0.9}

row is the number of the ranking in rankings.jsonl, from 1. scores are the normalised ones of its completions. log_odds
and ties are of its pairs (1, 2), (1, 3) … (2, 3) …: the log-odds of the first over the second, given no tie, and the
probability of a tie. surprise is in nats (cross_fitting.py), and left out where there is none. A training ranking has
no scores here, because the model has learned from it.
"""

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from training.learner.preferences.losses import TIE_MODELS
from training.learner.preferences.ranking_data import Ranking, RankingData

DIGITS = 6  # of the numbers in the file


def scored_rows(
    data: RankingData, raw: Tensor, scores: Tensor, tie_model: str, tie_logit: Tensor, surprise: Mapping[int, float]
) -> Iterator[dict[str, Any]]:
    """Yield the lines of the file, in the order of the rows of rankings.jsonl.

    raw, scores [N]: raw and normalised scores of the held-out comparisons' completions, end to end. surprise: by
    `Ranking.row`. A training ranking without a surprise has no line.
    """
    lines = {row: {"row": row, "split": "train", "surprise": value} for row, value in surprise.items()}
    first = 0
    for comparison in data.held_out:
        for ranking in comparison.rankings:
            places = [first + place for place in ranking.places]
            lines[ranking.row] = held_out_line(ranking, raw[places], scores[places], tie_model, tie_logit)
            lines[ranking.row] |= {"surprise": surprise[ranking.row]} if ranking.row in surprise else {}
        first += len(comparison.group.completions)
    for row in sorted(lines):
        yield {name: rounded(value) for name, value in lines[row].items()}


def held_out_line(ranking: Ranking, raw: Tensor, scores: Tensor, tie_model: str, tie_logit: Tensor) -> dict[str, Any]:
    """Return the line of a held-out ranking; raw, scores [K]: of its completions in the order of the row."""
    log_odds, ties = outcomes_of(raw, tie_model, tie_logit)
    return {"row": ranking.row, "split": "held_out", "scores": scores.tolist(), "log_odds": log_odds, "ties": ties}


def outcomes_of(raw: Tensor, tie_model: str, tie_logit: Tensor) -> tuple[list[float], list[float]]:
    """Return for each pair (i, j), i < j, the log-odds of i over j, given no tie, and the probability of a tie.

    raw [K]: raw scores. Without a model of ties their probability is 0.
    """
    pairs = torch.tensor(list(itertools.combinations(range(len(raw)), 2)))
    difference = raw.double()[pairs[:, 0]] - raw.double()[pairs[:, 1]]
    if tie_model not in ("rao_kupper", "davidson"):
        return difference.tolist(), [0.0] * len(pairs)
    outcome = TIE_MODELS[tie_model](difference, tie_logit.double())
    return (outcome.win - outcome.loss).tolist(), outcome.tie.exp().tolist()


def rounded(value: Any) -> Any:
    """Return the numbers of a line with DIGITS digits after the point."""
    if isinstance(value, list):
        return [round(one, DIGITS) for one in value]
    return round(value, DIGITS) if isinstance(value, float) else value
