"""The loss of comparisons under a reward model, its ensemble and its tie parameter.

Beside what people said, a comparison says that its completions answer its own prompt rather than another one: the
*contrast*, a completion under its own prompt preferred to itself under another (after Liu et al. 2024, «RRM: Robust
Reward Model Training Mitigates Reward Hacking», whose augmented pairs do so with another prompt's completion). It needs
no label, its two sides differ in nothing but whether they belong together, and so it teaches a model of few rankings to
read the prompt at all. Half of a comparison's completions are tried at a time: all of them teach no more.
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
from training.learner.preferences.calibration import hits
from training.learner.preferences.losses import Pairs, pair_losses, plackett_luce, tie_logit_of_share
from training.learner.preferences.ranking_data import Comparison, Ranking, pairs_of_comparisons
from training.learner.runtime.config import RewardConfig


class TieParameter(nn.Module):
    """The log-odds that two equally good completions are called a tie: given, or learned from the data's share on."""

    def __init__(self, share: float, learns: bool) -> None:
        super().__init__()
        self.logit = nn.Parameter(torch.tensor(tie_logit_of_share(share)), requires_grad=learns and share > 0)

    @property
    def share(self) -> float:
        return float(self.logit.detach().sigmoid())

    def step(self, size: float = 0.1) -> None:
        """A natural-gradient step: Adam's steps, right for weights, would take thousands to move a log-odds by 1.

        The Fisher information of the log-odds of an event of probability t is t(1−t).
        """
        if self.logit.grad is not None:
            share = self.logit.detach().sigmoid()
            step = size * self.logit.grad / (share * (1 - share))
            self.logit.data.sub_(step.clamp(-0.5, 0.5))
            self.logit.grad = None


def tie_parameter(rankings: Iterable[Ranking], settings: RewardConfig) -> TieParameter:
    """Starts at the share of pairs that are tied in these rankings, unless the settings fix it."""
    if settings.tie_share > 0:
        return TieParameter(settings.tie_share, learns=False)
    tied = total = 0
    for ranking in rankings:
        count = len(ranking.ranks)
        total += count * (count - 1) // 2
        tied += sum(ranking.ranks[i] == ranking.ranks[j] for i in range(count) for j in range(i))
    return TieParameter(tied / total, learns=True)


class Lesson(NamedTuple):
    """What one step learns from a comparison. Without an other prompt there is no contrast."""

    comparison: Comparison
    other_prompt: tuple[int, ...] = ()
    places: tuple[int, ...] = ()  # of the completions that are tried under the other prompt

    @property
    def weight(self) -> float:
        return total_weight([self.comparison])

    @property
    def groups(self) -> list[PromptGroup]:
        """What a forward pass over it reads."""
        return [self.comparison.group] + ([self.elsewhere()] if self.places else [])

    @property
    def sizes(self) -> list[GroupSizes]:
        """Tokens of its prompts, and of each one's completions."""
        return [group.sizes for group in self.groups]

    @property
    def tokens(self) -> int:
        return sum(group.tokens for group in self.groups)

    def elsewhere(self) -> PromptGroup:
        """The chosen completions under the other prompt."""
        completions = self.comparison.group.completions
        return PromptGroup(self.other_prompt, tuple(completions[place] for place in self.places))


class BatchLoss(NamedTuple):
    """Sums over rankings: divide by the weight of the batch for means."""

    objective: Tensor  # what is minimised: the model's loss, the contrast and the ensemble's loss
    loss: float  # the model's, nats
    contrast: float  # nats, before its weight in the objective
    right: float  # strict pairs ordered as they were judged
    strict: int  # strict pairs


def batch_loss(
    model: RewardModel,
    tie: TieParameter,
    lessons: Sequence[Lesson],
    settings: RewardConfig,
    bootstrap: dict[int, Tensor],
) -> BatchLoss:
    """One forward pass over the lessons. bootstrap: the ensemble's weights [H] of each prompt id."""
    comparisons = [lesson.comparison for lesson in lessons]
    own = [comparison.group for comparison in comparisons]
    features = model.features(own + [lesson.elsewhere() for lesson in lessons if lesson.places])
    every = model.raw_scores(features)
    count = sum(len(group.completions) for group in own)
    features, raw = features[:count], every[:count]
    pairs = on_device(pairs_of_comparisons(comparisons, settings.tie_model != "none", settings.margin), raw.device)
    loss = model_loss(raw, pairs, comparisons, settings, tie.logit)
    contrast = contrast_loss(raw, every[count:], lessons)
    objective = loss + settings.contrast * contrast
    if model.ensemble is not None:
        objective = objective + ensemble_loss(model, features, pairs, comparisons, settings, tie, bootstrap)
    differences = (raw.detach()[pairs.better] - raw.detach()[pairs.worse])[~pairs.tied]
    right = float(hits(differences).sum())
    return BatchLoss(objective, float(loss.detach()), float(contrast.detach()), right, len(differences))


def ensemble_loss(
    model: RewardModel,
    features: Tensor,
    pairs: Pairs,
    comparisons: Sequence[Comparison],
    settings: RewardConfig,
    tie: TieParameter,
    bootstrap: dict[int, Tensor],
) -> Tensor:
    """Σ weight · loss of each member on its own bootstrap of the prompts; its gradient stays in the ensemble."""
    weights = torch.stack([bootstrap[c.prompt_id] for c in comparisons for _ in c.rankings]).to(features.device)
    losses = pair_losses(model.members(features), pairs, _tie_model(settings), tie.logit.detach())
    return (losses * pairs.weight[:, None] * weights[pairs.ranking]).sum()


def contrast_loss(raw: Tensor, elsewhere: Tensor, lessons: Sequence[Lesson]) -> Tensor:
    """Σ over lessons of weight · mean of −log sigmoid(score under the own prompt − score under the other).

    raw: scores of all the lessons' completions; elsewhere: of their chosen ones, under their other prompts.
    """
    rows: list[int] = []
    weights: list[float] = []
    first = 0
    for lesson in lessons:
        rows += [first + place for place in lesson.places]
        weights += [lesson.weight / len(lesson.places) for _ in lesson.places]
        first += len(lesson.comparison.group.completions)
    losses = softplus(elsewhere - raw[torch.tensor(rows, dtype=torch.int64, device=raw.device)])
    return (losses * torch.tensor(weights, device=raw.device)).sum()


def _tie_model(settings: RewardConfig) -> str:
    return "bradley_terry" if settings.tie_model == "none" else settings.tie_model


def on_device(pairs: Pairs, device: torch.device) -> Pairs:
    return Pairs(*(part.to(device) for part in pairs))


def model_loss(
    raw: Tensor, pairs: Pairs, comparisons: Sequence[Comparison], settings: RewardConfig, tie_logit: Tensor
) -> Tensor:
    """Σ weight · loss over rankings: of their pairs, or of their order where that is strict and so configured."""
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
    """Strict rankings by their number of completions: weights, and where their scores lie, best first."""
    found: dict[int, tuple[list[float], list[list[int]]]] = defaultdict(lambda: ([], []))
    first = 0
    for comparison in comparisons:
        for ranking in filter(lambda ranking: ranking.is_strict, comparison.rankings):
            order = sorted(zip(ranking.ranks, ranking.places, strict=True))
            weights, orders = found[len(order)]
            weights.append(ranking.weight)
            orders.append([first + place for _, place in order])
        first += len(comparison.group.completions)
    return found


def total_weight(comparisons: Iterable[Comparison]) -> float:
    return sum(ranking.weight for comparison in comparisons for ranking in comparison.rankings)


def bootstrap_weights(comparisons: Iterable[Comparison], heads: int, seed: int) -> dict[int, Tensor]:
    """Of each prompt, how much each head of the ensemble sees of it: exponential with mean 1.

    The Bayesian bootstrap (Rubin 1981) over prompts, as rankings of one prompt are not independent.
    """
    prompts = sorted({comparison.prompt_id for comparison in comparisons})
    drawn = torch.empty(len(prompts), heads).exponential_(generator=torch.Generator().manual_seed(seed))
    return dict(zip(prompts, drawn, strict=True))
