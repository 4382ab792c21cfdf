"""Anchor: one score that separates good completions from bad ones, learned together with the reward model.

A ranking states which completion is better, not whether any of them is good. If its annotator judges all of them good,
every completion x is above an anchor with the score a; if all are bad, every completion is below it:

    P(x is good) = sigmoid(r(x) − a)

This is a logistic model of two categories with one cut point a (McCullagh 1980, "Regression models for ordinal data").
KTO (Ethayarajh et al. 2024, eq. 7) and BCO (Jung et al. 2024, "Binary classifier optimization for large language model
alignment", eq. 6) learn from such labels with a reference point at the same place; here it is fitted.

If all labels are of one kind, no finite a is most likely. So a has a normal prior with deviation 1 nat around its
start: the anchor of the reward model that training continues from, or else 0, the score of every completion under a new
head. One pass over the data counts the prior once.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from training.learner.preferences.calibration import accuracy_interval
from training.learner.preferences.ranking_data import Comparison

STEP = 0.3  # of the way to the minimum of the bound: batches are samples


class AnchoredCompletions(NamedTuple):
    """Completions of rankings whose annotator judged all of them good, or all bad: M completions."""

    place: Tensor  # int64 [M], into the scores of the comparisons' completions, end to end
    side: Tensor  # float [M], 1 above the anchor, −1 below it
    weight: Tensor  # float [M], the ranking's weight divided by its number of completions
    prompt: Tensor  # int64 [M], prompt id


class Anchor(nn.Module):
    """The anchor's score, in nats on the scale of raw scores."""

    start: Tensor

    def __init__(self, start: float, total_weight: float) -> None:
        super().__init__()
        self.score = nn.Parameter(torch.tensor(start))
        self.register_buffer("start", torch.tensor(start))
        self.total_weight = total_weight  # of all training rankings with an anchor

    def loss(self, raw: Tensor, comparisons: Sequence[Comparison]) -> Tensor:
        """Return Σ weight · loss of the comparisons' anchored completions, and their share of the prior."""
        anchored = anchored_completions(comparisons)
        index, side, weight = (part.to(raw.device) for part in anchored[:3])
        losses = anchor_losses(raw[index], self.score.to(raw.device), side)
        share = weight.sum() / self.total_weight
        return (losses * weight).sum() + share * (self.score - self.start).square().to(raw.device) / 2

    def step(self, comparisons: Iterable[Comparison], factor: float, batch_weight: float) -> None:
        """Move towards the minimum of a quadratic bound of the batch's mean loss, and clear the gradient.

        The second derivative of −log sigmoid is at most ¼ (Böhning & Lindsay 1988, "Monotonicity of quadratic
        approximation algorithms"), so no learning rate is needed. Adam at the rate of weights would hardly move it.
        factor: of the anchor's loss in the objective. batch_weight: of all rankings of the batch.
        """
        weight = anchored_weight(comparisons)
        if self.score.grad is not None and weight > 0 and factor > 0:
            curvature = factor * (weight / 4 + weight / self.total_weight) / batch_weight
            self.score.data.sub_(STEP * self.score.grad / curvature)
        self.score.grad = None


def new_anchor(comparisons: Sequence[Comparison], start: float) -> Anchor | None:
    """Return the anchor of these training comparisons; None if no ranking has one."""
    weight = anchored_weight(comparisons)
    return Anchor(start, weight) if weight > 0 else None


def anchor_losses(raw: Tensor, anchor: Tensor, side: Tensor) -> Tensor:
    """Return −log sigmoid(side · (r − a)) of each completion, nats, [M]."""
    return softplus(-side * (raw - anchor))


def anchored_completions(comparisons: Iterable[Comparison]) -> AnchoredCompletions:
    rows: list[tuple[int, float, float, int]] = []
    first = 0
    for comparison in comparisons:
        for ranking in comparison.rankings:
            if ranking.anchor:
                weight = ranking.weight / len(ranking.places)
                rows += [(first + place, ranking.anchor, weight, comparison.prompt_id) for place in ranking.places]
        first += len(comparison.group.completions)
    index, side, weights, prompt = zip(*rows, strict=True) if rows else ((), (), (), ())
    return AnchoredCompletions(
        torch.tensor(index, dtype=torch.int64),
        torch.tensor(side, dtype=torch.float32),
        torch.tensor(weights, dtype=torch.float32),
        torch.tensor(prompt, dtype=torch.int64),
    )


def anchored_weight(comparisons: Iterable[Comparison]) -> float:
    rankings = (ranking for comparison in comparisons for ranking in comparison.rankings)
    return sum(ranking.weight for ranking in rankings if ranking.anchor)


def anchor_report(raw: Tensor, anchor: float, comparisons: Sequence[Comparison]) -> dict[str, float]:
    """Return the share of held-out anchored completions on their side of the anchor; nothing if there are none."""
    anchored = anchored_completions(comparisons)
    if not len(anchored.place):
        return {}
    right = (((raw[anchored.place] - anchor) * anchored.side).sign() + 1).double() / 2
    share = accuracy_interval(right, anchored.prompt)
    return {
        "held_out_anchor_accuracy": share.value,
        "held_out_anchor_accuracy_low": share.low,
        "held_out_anchor_accuracy_high": share.high,
        "held_out_anchored_completions": len(right),
    }
