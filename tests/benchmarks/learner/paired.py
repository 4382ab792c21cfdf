"""Paired comparison of two reward models on the same held-out pairs, and of their training losses.

Both are evaluated by the same code with plain transformers. They count as equally good if their accuracies differ by at
most one point or two standard errors of the difference. The difference is paired and computed per prompt, because the
pairs of a prompt are not independent; it does not include the variance between trainings. Two trainings that do the
same still diverge, because rounding differences grow from step to step; `equal_steps` counts the steps before that.
"""

import itertools
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple


class Difference(NamedTuple):
    """Accord's held-out accuracy minus the peer's."""

    mean: float
    error: float  # standard error of the mean over prompts

    @property
    def is_chance(self) -> bool:
        """Return whether the difference is within one point or two standard errors."""
        return abs(self.mean) <= max(0.01, 2 * self.error)


def difference(ours: Sequence[Sequence[float]], peer: Sequence[Sequence[float]]) -> Difference:
    """Compare pairs of trainings by the share of right pairs per held-out prompt, in the same order of prompts."""
    pairs = zip(zip(*ours, strict=True), zip(*peer, strict=True), strict=True)
    prompts = [statistics.fmean(a) - statistics.fmean(b) for a, b in pairs]
    return Difference(statistics.fmean(prompts), statistics.stdev(prompts) / len(prompts) ** 0.5)


def equal_steps(ours: Sequence[float], peer: Sequence[float]) -> int:
    """Return the number of first steps whose losses differ by less than 0.001 nats."""
    return len(list(itertools.takewhile(lambda both: abs(both[0] - both[1]) < 1e-3, zip(ours, peer, strict=True))))


def shares_of_right_pairs(model: Path, held_out: Path) -> list[float]:
    """Return per held-out prompt the share of pairs that the model orders as the judge did; equal scores count half.

    held_out: rows with token ids of a prompt and its completions, best first. Sequences run singly, without padding.
    """
    import torch
    from transformers import AutoModelForSequenceClassification

    network = AutoModelForSequenceClassification.from_pretrained(model).eval()
    found = []
    with torch.no_grad():
        for row in json.loads(held_out.read_text()):
            scores = [network(torch.tensor([row["prompt"] + text])).logits.item() for text in row["completions"]]
            pairs = itertools.combinations(scores, 2)
            found.append(statistics.fmean((better > worse) + (better == worse) / 2 for better, worse in pairs))
    return found
