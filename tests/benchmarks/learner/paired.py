"""Two reward models on the same held-out pairs: are they equally good, and were they trained alike?

Both are judged by one piece of code, plain transformers. They are equally good when their accuracies are no more than a
point apart, or no more than two standard errors of the difference. That is paired, and counted by prompt, as the pairs
of a prompt are not independent; it says nothing of what chance adds to each training. Two trainings that do the same
thing part all the same: what the rounding of a sum changes grows from step to step. `like_steps` says where.
"""

import itertools
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple


class Difference(NamedTuple):
    """Our held-out accuracy less the peer's."""

    mean: float
    error: float  # standard error of the mean over prompts

    @property
    def is_chance(self) -> bool:
        """Within a point, or within two standard errors."""
        return abs(self.mean) <= max(0.01, 2 * self.error)


def difference(ours: Sequence[Sequence[float]], peer: Sequence[Sequence[float]]) -> Difference:
    """Of pairs of trainings, each the share of right pairs of every held-out prompt, the prompts in one order."""
    pairs = zip(zip(*ours, strict=True), zip(*peer, strict=True), strict=True)
    prompts = [statistics.fmean(a) - statistics.fmean(b) for a, b in pairs]
    return Difference(statistics.fmean(prompts), statistics.stdev(prompts) / len(prompts) ** 0.5)


def like_steps(ours: Sequence[float], peer: Sequence[float]) -> int:
    """The number of first steps whose losses are within a thousandth of a nat of each other."""
    return len(list(itertools.takewhile(lambda both: abs(both[0] - both[1]) < 1e-3, zip(ours, peer, strict=True))))


def rights(model: Path, held_out: Path) -> list[float]:
    """Of each held-out prompt the share of its pairs that the model orders as the judge did; equal scores count half.

    held_out: rows of a prompt's token ids and its completions', best first. One sequence at a time: nothing is padding.
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
