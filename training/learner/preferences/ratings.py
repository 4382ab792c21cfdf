"""Ratings of completions by attribute: read from ratings.jsonl, and the loss of a reward model's attribute heads.

A rating is a number such as 1 to 5. A mean of n people's ratings has a variance of σ²/n around what people rate on
average, so under a normal likelihood with equal variance the loss of a completion's attribute is

    n/2 · ((mean − μ)/σ − prediction)²

with μ and σ the mean and deviation of the attribute's training ratings. It is the squared error of HelpSteer2 (Wang et
al. 2024, §3.1), once for every person. Completions are those of the rankings, so the heads need no forward pass of
their own. A completion of several comparisons counts once per pass over the data: its loss is divided among them.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from training.learner.models.attribute_heads import AttributeHeads
from training.learner.preferences.passes import total_weight
from training.learner.preferences.ranking_data import Comparison
from training.learner.runtime.config import Settings
from training.learner.runtime.jobdir import BadInput
from training.learner.text.messages import (
    SPLITS,
    check_messages,
    check_turns,
    encode_prompt,
    encode_turns,
    naming_row,
    tokens_left,
)

Key = tuple[tuple[int, ...], tuple[int, ...]]  # tokens of prompt and completion


class Rated(NamedTuple):
    """The ratings of one completion for one attribute."""

    mean: float
    raters: int
    values: tuple[float, ...] = ()  # one per person; without them, people are not compared

    def joined(self, other: "Rated") -> "Rated":
        """Return both together: two texts whose first tokens are the same are one completion."""
        raters = self.raters + other.raters
        mean = (self.mean * self.raters + other.mean * other.raters) / raters
        return Rated(mean, raters, self.values + other.values)


@dataclass
class RatingData:
    """Ratings by split, completion and attribute."""

    train: dict[Key, dict[str, Rated]] = field(default_factory=dict)
    held_out: dict[Key, dict[str, Rated]] = field(default_factory=dict)


def read_ratings(
    tokenizer: Any, rows: Iterable[dict[str, Any]], settings: Settings, positions: int | None = None
) -> RatingData:
    """Return the ratings of ratings.jsonl. Raises BadInput for a row that has none; the message names it.

    positions: of the reward model; longer dialogues are cut as those of rankings.jsonl are.
    """
    data = RatingData()
    for number, row in enumerate(rows, 1):
        with naming_row("ratings.jsonl", number, row):
            ratings = _check_row(row)
            prompt = encode_prompt(tokenizer, row["messages"], settings.max_prompt_tokens, settings.overlong_prompts)
            turns = check_turns(row.get("turns") or [{"role": "assistant", "content": row["completion"]}])
            completion = encode_turns(
                tokenizer, row["messages"], turns, settings.max_completion_tokens, tokens_left(positions, prompt)
            )
        by_attribute = getattr(data, row["split"]).setdefault((tuple(prompt), tuple(completion.tokens)), {})
        for name, rated in ratings.items():
            by_attribute[name] = by_attribute[name].joined(rated) if name in by_attribute else rated
    return data


def _check_row(row: dict[str, Any]) -> dict[str, Rated]:
    """Return the ratings of a row by attribute. Raises BadInput if it is not as `reward --help` describes."""
    check_messages(row.get("messages"))
    if row.get("split") not in SPLITS:
        raise BadInput(f"split must be train or held_out, not {row.get('split')!r}")
    if not isinstance(row.get("completion"), str):
        raise BadInput("completion must be a string")
    ratings = row.get("ratings")
    if not isinstance(ratings, dict) or not ratings or not all(isinstance(rated, dict) for rated in ratings.values()):
        raise BadInput("ratings must be an object with one object per attribute")
    return {name: _rated(name, rated) for name, rated in ratings.items()}


def _rated(name: str, rated: dict[str, Any]) -> Rated:
    mean, raters, values = rated.get("mean", ""), rated.get("raters", 1), rated.get("values", [])
    if not is_finite(mean):
        raise BadInput(f"the mean of {name!r} must be a number, not {mean!r}")
    if type(raters) is not int or raters < 1:
        raise BadInput(f"the raters of {name!r} must be a whole number of at least 1, not {raters!r}")
    if not isinstance(values, list) or not all(map(is_finite, values)) or (values and len(values) != raters):
        raise BadInput(f"the values of {name!r} must be a list with one number per rater")
    return Rated(float(mean), raters, tuple(map(float, values)))


def is_finite(value: object) -> bool:
    return type(value) in (int, float) and abs(float(value)) < float("inf")  # type: ignore[arg-type]


class RatingTargets:
    """Standardised training ratings of the completions of comparisons."""

    def __init__(self, data: RatingData, comparisons: Sequence[Comparison]) -> None:
        """Prepare the ratings of those completions that the comparisons have and that have a weight."""
        useful = [comparison for comparison in comparisons if total_weight([comparison]) > 0]
        self.occurrences = Counter(key for comparison in useful for key in keys_of(comparison))
        self.rated = {key: rated for key, rated in data.train.items() if key in self.occurrences}
        self.names = tuple(sorted({name for rated in self.rated.values() for name in rated}))
        self.unranked = len(data.train) - len(self.rated)
        self.standards = [self._standard(name) for name in self.names]
        ratings = sum(one.raters for rated in self.rated.values() for one in rated.values())
        # Makes the loss of a batch, divided by the weight of its rankings, a mean over ratings.
        self.factor = total_weight(useful) / max(ratings, 1)

    def _standard(self, name: str) -> tuple[float, float]:
        """Return mean and deviation of an attribute's ratings, each completion as often as it was rated."""
        rated = [rated[name] for rated in self.rated.values() if name in rated]
        count = sum(one.raters for one in rated)
        mean = sum(one.raters * one.mean for one in rated) / count
        variance = sum(one.raters * (one.mean - mean) ** 2 for one in rated) / count
        return mean, variance**0.5 or 1.0

    def loss(self, heads: AttributeHeads, features: Tensor, comparisons: Sequence[Comparison]) -> Tensor:
        """Return the loss of the comparisons' rated completions, with features [N, d] of all completions end to end.

        Divided by the weight of the rankings of all comparisons it is half the mean squared error of a rating.
        """
        rows: list[int] = []
        targets: list[list[float]] = []
        weights: list[list[float]] = []
        keys = (key for comparison in comparisons for key in keys_of(comparison))
        for row, key in enumerate(keys):
            if key in self.rated:
                rows.append(row)
                standard = [self._target(key, place) for place in range(len(self.names))]
                targets.append([target for target, _ in standard])
                weights.append([weight / self.occurrences[key] for _, weight in standard])
        if not rows:
            return features.new_zeros(())
        device = features.device
        target, weight = (torch.tensor(values, dtype=torch.float32, device=device) for values in (targets, weights))
        errors = heads(features[torch.tensor(rows, device=device)]) - target
        return self.factor * (weight * errors.square()).sum() / 2

    def _target(self, key: Key, place: int) -> tuple[float, float]:
        """Return the standardised rating of a completion for an attribute, and its raters; 0 and 0 without one."""
        rated = self.rated[key].get(self.names[place])
        if rated is None:
            return 0.0, 0.0
        mean, deviation = self.standards[place]
        return (rated.mean - mean) / deviation, float(rated.raters)


def keys_of(comparison: Comparison) -> list[Key]:
    return [(comparison.group.prompt, completion) for completion in comparison.group.completions]
