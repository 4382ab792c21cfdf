"""Loss of comparisons under a reward model, its ensemble and its tie parameter.

Besides the rankings, the *contrast* is learned: a completion under its own prompt is preferred to the same completion
under another prompt (after Liu et al. 2024, "RRM: Robust Reward Model Training Mitigates Reward Hacking", whose
augmented pairs use another prompt's completion). It needs no labels. The two sides differ in the prompt only, so a
model trained on few rankings learns to use the prompt. Half of a comparison's completions are used per step; all of
them did not help more.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from training.learner.models.packed_attention import GroupSizes
from training.learner.models.packing import PromptGroup
from training.learner.models.reward_model import RewardModel
from training.learner.preferences.anchor import Anchor
from training.learner.preferences.calibration import hits
from training.learner.preferences.losses import Pairs, pair_losses, plackett_luce, tie_logit_of_share
from training.learner.preferences.marks import MarkTargets
from training.learner.preferences.passes import total_weight
from training.learner.preferences.ranking_data import Comparison, Ranking, pairs_of_comparisons
from training.learner.preferences.ratings import RatingTargets
from training.learner.runtime.config import RewardConfig
from training.learner.runtime.config.dpo import DpoConfig


class TieParameter(nn.Module):
    """Log-odds that two equally good completions are tied: fixed, or learned from the share of ties in the data."""

    def __init__(self, share: float, learns: bool) -> None:
        super().__init__()
        self.logit = nn.Parameter(torch.tensor(tie_logit_of_share(share)), requires_grad=learns and share > 0)

    @property
    def share(self) -> float:
        return float(self.logit.detach().sigmoid())

    def step(self, size: float = 0.1) -> None:
        """Take a natural-gradient step; Adam at the rate of weights would need thousands of steps to move it by 1.

        The Fisher information of the log-odds of an event of probability t is t(1−t).
        """
        if self.logit.grad is not None:
            share = self.logit.detach().sigmoid()
            step = size * self.logit.grad / (share * (1 - share))
            self.logit.data.sub_(step.clamp(-0.5, 0.5))
            self.logit.grad = None


def tie_parameter(rankings: Iterable[Ranking], settings: RewardConfig | DpoConfig) -> TieParameter:
    """Return the tie parameter: fixed by the settings, or starting at the share of tied pairs in these rankings."""
    if settings.tie_share > 0:
        return TieParameter(settings.tie_share, learns=False)
    tied = total = 0
    for ranking in rankings:
        count = len(ranking.ranks)
        total += count * (count - 1) // 2
        tied += sum(ranking.ranks[i] == ranking.ranks[j] for i in range(count) for j in range(i))
    return TieParameter(tied / total, learns=True)


class TrainingItem(NamedTuple):
    """A comparison with the contrast of one step; without another prompt there is no contrast."""

    comparison: Comparison
    other_prompt: tuple[int, ...] = ()
    places: tuple[int, ...] = ()  # of the completions that are computed under the other prompt too

    @property
    def weight(self) -> float:
        return total_weight([self.comparison])

    @property
    def groups(self) -> list[PromptGroup]:
        """Prompt groups of a forward pass over the item."""
        return [self.comparison.group] + ([self.contrast_group()] if self.places else [])

    @property
    def sizes(self) -> list[GroupSizes]:
        """Number of tokens of each group's prompt and completions."""
        return [group.sizes for group in self.groups]

    @property
    def tokens(self) -> int:
        return sum(group.tokens for group in self.groups)

    def contrast_group(self) -> PromptGroup:
        """Return the selected completions under the other prompt."""
        completions = self.comparison.group.completions
        return PromptGroup(self.other_prompt, tuple(completions[place] for place in self.places))


class BatchLoss(NamedTuple):
    """Sums over rankings; divided by the weight of the batch they are means."""

    objective: Tensor  # to minimise: the model's loss, the contrast, the loss of anchor, ratings, marks and ensemble
    loss: float  # the model's, nats
    contrast: float  # nats, before its weight in the objective
    anchor: float  # nats, before its weight in the objective
    ratings: float  # half squared errors of standardised ratings, before their weight in the objective
    marks: float  # nats per token, before their weight in the objective
    right: float  # strict pairs that the model orders as the ranking does
    strict: int  # strict pairs


def batch_loss(
    model: RewardModel,
    tie: TieParameter,
    items: Sequence[TrainingItem],
    settings: RewardConfig,
    bootstrap: dict[int, Tensor],
    anchor: Anchor | None = None,
    ratings: RatingTargets | None = None,
    marks: MarkTargets | None = None,
) -> BatchLoss:
    """Return the loss of one forward pass over the items. bootstrap: the ensemble's weights [H] by prompt id.

    ratings: targets of the model's attribute heads. marks: those of its mark head.
    """
    comparisons = [item.comparison for item in items]
    groups = [comparison.group for comparison in comparisons]
    all_groups = groups + [item.contrast_group() for item in items if item.places]
    marked = None if marks is None else marks.of(comparisons)
    if marked is not None and marked.tokens:
        features, states = model.features_and_states(all_groups, marked.tokens)
    else:
        features, states = model.features(all_groups), None
    raw_scores = model.raw_scores(features)
    count = sum(len(group.completions) for group in groups)  # the scores after these are those of contrast groups
    features, raw, contrast_scores = features[:count], raw_scores[:count], raw_scores[count:]
    pairs = on_device(pairs_of_comparisons(comparisons, settings.learns_ties, settings.margin), raw.device)
    loss = model_loss(raw, pairs, comparisons, settings, tie.logit)
    contrast = contrast_loss(raw, contrast_scores, items)
    anchored = raw.new_zeros(()) if anchor is None else anchor.loss(raw, comparisons)
    objective = loss + settings.contrast * contrast + settings.anchor_weight * anchored
    rated = raw.new_zeros(())
    if ratings is not None and model.attributes is not None:
        rated = ratings.loss(model.attributes, features, comparisons)
        objective = objective + settings.attribute_weight * rated
    mark_loss = raw.new_zeros(())
    if marks is not None and marked is not None and states is not None and model.mark_head is not None:
        mark_loss = marks.loss(model.mark_head, states, marked)
        objective = objective + settings.marks_weight * mark_loss
    if model.ensemble is not None:
        objective = objective + ensemble_loss(model, features, pairs, comparisons, settings, tie, bootstrap)
    differences = (raw.detach()[pairs.better] - raw.detach()[pairs.worse])[~pairs.tied]
    right = float(hits(differences).sum())
    values = [float(part.detach()) for part in (loss, contrast, anchored, rated, mark_loss)]
    return BatchLoss(objective, values[0], values[1], values[2], values[3], values[4], right, len(differences))


def ensemble_loss(
    model: RewardModel,
    features: Tensor,
    pairs: Pairs,
    comparisons: Sequence[Comparison],
    settings: RewardConfig,
    tie: TieParameter,
    bootstrap: dict[int, Tensor],
) -> Tensor:
    """Return Σ weight · loss of each member on its bootstrap of the prompts; the gradient stays in the ensemble."""
    weights = torch.stack([bootstrap[c.prompt_id] for c in comparisons for _ in c.rankings]).to(features.device)
    losses = pair_losses(model.members(features), pairs, _tie_model(settings), tie.logit.detach())
    return (losses * pairs.weight[:, None] * weights[pairs.ranking]).sum()


def contrast_loss(raw: Tensor, contrast_scores: Tensor, items: Sequence[TrainingItem]) -> Tensor:
    """Return Σ over items of weight · mean of −log sigmoid(score under the item's prompt − score under the other).

    raw: scores of all completions of the items. contrast_scores: scores of the completions in their contrast groups.
    """
    rows: list[int] = []
    weights: list[float] = []
    first = 0
    for item in items:
        rows += [first + place for place in item.places]
        weights += [item.weight / len(item.places) for _ in item.places]
        first += len(item.comparison.group.completions)
    losses = softplus(contrast_scores - raw[torch.tensor(rows, dtype=torch.int64, device=raw.device)])
    return (losses * torch.tensor(weights, device=raw.device)).sum()


def _tie_model(settings: RewardConfig) -> str:
    return "bradley_terry" if settings.tie_model == "none" else settings.tie_model


def on_device(pairs: Pairs, device: torch.device) -> Pairs:
    return Pairs(*(part.to(device) for part in pairs))


def model_loss(
    raw: Tensor, pairs: Pairs, comparisons: Sequence[Comparison], settings: RewardConfig, tie_logit: Tensor
) -> Tensor:
    """Return Σ weight · loss over rankings: of their pairs, or of strict orders if the settings say so."""
    losses = pair_losses(raw, pairs, _tie_model(settings), tie_logit) * pairs.weight
    if settings.strict_orders == "pairs":
        return losses.sum()
    rankings = [ranking for comparison in comparisons for ranking in comparison.rankings]
    strict = torch.tensor([ranking.is_strict for ranking in rankings], device=raw.device)
    total = losses[~strict[pairs.ranking]].sum()
    for weights, orders in _strict_orders(comparisons).values():
        choices = plackett_luce(raw[torch.tensor(orders, device=raw.device)])
        total = total + (choices * torch.tensor(weights, device=raw.device)).sum()
    return total


def _strict_orders(comparisons: Sequence[Comparison]) -> dict[int, tuple[list[float], list[list[int]]]]:
    """Return strict rankings by their number of completions: weights, and indices of their scores, best first."""
    by_size: dict[int, tuple[list[float], list[list[int]]]] = defaultdict(lambda: ([], []))
    first = 0
    for comparison in comparisons:
        for ranking in filter(lambda ranking: ranking.is_strict, comparison.rankings):
            order = sorted(zip(ranking.ranks, ranking.places, strict=True))
            weights, orders = by_size[len(order)]
            weights.append(ranking.weight)
            orders.append([first + place for _, place in order])
        first += len(comparison.group.completions)
    return by_size


def bootstrap_weights(comparisons: Iterable[Comparison], heads: int, seed: int) -> dict[int, Tensor]:
    """Return the weight of each prompt for each head of the ensemble: exponential with mean 1.

    This is the Bayesian bootstrap (Rubin 1981) over prompts, because rankings of one prompt are not independent.
    """
    prompts = sorted({comparison.prompt_id for comparison in comparisons})
    drawn = torch.empty(len(prompts), heads).exponential_(generator=torch.Generator().manual_seed(seed))
    return dict(zip(prompts, drawn, strict=True))
