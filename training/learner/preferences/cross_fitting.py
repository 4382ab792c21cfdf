"""Cross-fitted surprise: how strongly the other rankings contradict a ranking.

A model that has learned from a wrong ranking finds it less surprising. So the rankings are scored by linear heads that
have not learned from their prompts (cross-validation, as Northcutt et al. 2021, "Confident Learning: Estimating
Uncertainty in Dataset Labels", do for classes). The prompts with a training ranking are divided into folds; the head of
a fold is fitted to the training rankings of all other folds. Rankings of held-out prompts are scored by a head that is
fitted to all training rankings.

The heads read the last hidden states of the policy that the reward model starts from: at the completion's last token,
and their mean over its tokens. Its weights do not depend on the rankings of this training, but a policy of an earlier
round has learned from earlier rankings through its reward.

A head is a Bradley–Terry model of its score differences, with a ridge penalty on weights of standardised features. It
is fitted by Newton's method. The penalty is chosen within the other folds: the one with the lowest loss on the fold
after the head's own, of heads without both. Tied pairs are left out.

Other rankings of the same comparison are evidence too: each has a vote on a pair, for or against its order. A vote adds
log-odds to the head's, the same number for all (`worth_of_a_vote`), times the weight of its ranking.

The surprise of a ranking is the mean over its pairs that are not tied of the log-odds that the other completion is the
better one, in nats, by the head and the votes. Under Bradley–Terry the head's part is the log-likelihood ratio of the
reversed ranking to the ranking, per pair. A positive number means that the evidence prefers the reversed ranking.
"""

from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from training.learner.preferences.losses import Pairs
from training.learner.preferences.ranking_data import Comparison, pairs_of_comparisons
from training.learner.text.messages import shuffled

PENALTIES = (3.0, 30.0, 300.0, 3000.0)  # of Σ weight² / 2, beside a loss that is a sum over rankings
MAX_COMPONENTS = 256  # principal components of wider features
NEWTON_STEPS, TOLERANCE = 50, 1e-8
MAX_WORTH, BISECTIONS = 8.0, 40  # log-odds of a vote


class Differences(NamedTuple):
    """The P pairs of rankings that are not tied."""

    features: Tensor  # [P, d] float64: those of the better completion minus those of the other
    weight: Tensor  # [P] float64, the ranking's weight divided by its number of such pairs
    ranking: Tensor  # [P] index of the ranking

    def select(self, rows: Tensor) -> "Differences":
        return Differences(self.features[rows], self.weight[rows], self.ranking[rows])


def chosen(comparisons: Sequence[Comparison], most: int, seed: int) -> list[Comparison]:
    """Return at most this many of the comparisons, chosen at random, in their order."""
    order = shuffled(len(comparisons), seed, 0)
    return [comparisons[index] for index in sorted(order[:most])]


def surprises(
    train: Sequence[Comparison], held_out: Sequence[Comparison], features: Tensor, folds: int, seed: int
) -> dict[int, float]:
    """Return the surprise of rankings by `Ranking.row`; rankings of ties alone have none.

    features [N, d]: of the completions of `train` and then of `held_out`, end to end. With fewer training prompts than
    folds, each prompt is a fold; with fewer than three there is no surprise.
    """
    fold = folds_of(train, folds, seed)
    count = 1 + max(fold, default=0)
    if count < 3:
        return {}
    comparisons = [*train, *held_out]
    differences = differences_of(comparisons, standardised(features))
    of_ranking = [number for comparison, number in zip(train, fold, strict=True) for _ in comparison.rankings]
    of_ranking += [-1 for comparison in held_out for _ in comparison.rankings]
    fold_of_pair = torch.tensor(of_ranking, dtype=torch.int64, device=features.device)[differences.ranking]
    log_odds = torch.zeros(len(differences.weight), dtype=torch.float64, device=features.device)
    for number in range(-1, count):
        mine = fold_of_pair == number
        if bool(mine.any()):
            head = fitted_without(number, differences, fold_of_pair, count)
            log_odds[mine] = differences.features[mine] @ head
    votes = votes_of_others(comparisons).to(features.device)
    log_odds += worth_of_a_vote(log_odds, votes, differences.weight) * votes
    return _means_by_row(-log_odds, differences.ranking, comparisons)


def votes_of_others(comparisons: Sequence[Comparison]) -> Tensor:
    """Return the votes [P] on pairs that are not tied, by the other rankings of the comparison.

    It is the sum of their weights, positive for the order of the pair and negative for the other one.
    """
    pairs: Pairs = pairs_of_comparisons(comparisons, ties=False)
    of_ranking = [one.weight for comparison in comparisons for one in comparison.rankings]
    weight = torch.tensor(of_ranking, dtype=torch.float64)[pairs.ranking]
    both = torch.stack([pairs.better, pairs.worse], 1)
    _, pair = both.sort(1).values.unique(dim=0, return_inverse=True)
    signed = torch.where(pairs.better < pairs.worse, weight, -weight)
    total = torch.zeros(len(weight), dtype=torch.float64).index_add(0, pair, signed)[pair]
    return torch.where(pairs.better < pairs.worse, total, -total) - weight


def worth_of_a_vote(log_odds: Tensor, votes: Tensor, weight: Tensor) -> float:
    """Return the log-odds c ≥ 0 of a vote that maximise Σ weight · log sigmoid(log_odds + c · votes) − c² / 2.

    All arguments are [P]. The prior keeps a few votes from deciding. The slope falls with c: bisection finds its zero.
    """

    def slope(worth: float) -> float:
        return float((weight * votes * (-(log_odds + worth * votes)).sigmoid()).sum()) - worth

    low, high = 0.0, MAX_WORTH
    if slope(low) <= 0:
        return 0.0
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) > 0 else (low, middle)
    return (low + high) / 2


def folds_of(comparisons: Sequence[Comparison], folds: int, seed: int) -> list[int]:
    """Return the fold of each comparison. Comparisons whose prompts have the same tokens are in one fold."""
    prompts = sorted({comparison.group.prompt for comparison in comparisons})
    order = shuffled(len(prompts), seed, 0)
    fold = {prompts[index]: place % folds for place, index in enumerate(order)}
    return [fold[comparison.group.prompt] for comparison in comparisons]


def standardised(features: Tensor) -> Tensor:
    """Return features [N, d] as float64 with mean 0 and deviation 1; of wide ones the first principal components."""
    centred = features.double() - features.double().mean(0)
    deviation = centred.square().mean(0).sqrt()
    scaled = centred / torch.where(deviation > 1e-6, deviation, torch.ones_like(deviation))
    if scaled.shape[1] <= MAX_COMPONENTS:
        return scaled
    _, vectors = torch.linalg.eigh(scaled.T @ scaled)  # in ascending order
    return scaled @ vectors[:, -MAX_COMPONENTS:]


def differences_of(comparisons: Iterable[Comparison], features: Tensor) -> Differences:
    """Return the pairs that are not tied; features [N, d]: of the comparisons' completions, end to end."""
    pairs: Pairs = pairs_of_comparisons(comparisons, ties=False)
    better, worse = pairs.better.to(features.device), pairs.worse.to(features.device)
    return Differences(
        features[better] - features[worse], pairs.weight.double().to(features.device), pairs.ranking.to(features.device)
    )


def fitted_without(number: int, pairs: Differences, fold: Tensor, count: int) -> Tensor:
    """Return the head [d] that is fitted to the training pairs outside fold `number`; −1: to all of them.

    fold [P]: of each pair, −1 for held-out ones. count: number of folds.
    """
    following = (number + 1) % count
    is_trained = (fold >= 0) & (fold != number)
    # For held-out pairs `following` is the first fold.
    inner, validation = pairs.select(is_trained & (fold != following)), pairs.select(is_trained & (fold == following))
    losses = [head_loss(fitted_head(inner, penalty), validation) for penalty in PENALTIES]
    return fitted_head(pairs.select(is_trained), PENALTIES[losses.index(min(losses))])


def fitted_head(pairs: Differences, penalty: float) -> Tensor:
    """Return the weights [d] that minimise Σ weight · −log sigmoid(w·x) + penalty · |w|² / 2, by Newton's method."""
    x, weight = pairs.features, pairs.weight
    head = x.new_zeros(x.shape[1])
    ridge = penalty * torch.eye(len(head), dtype=x.dtype, device=x.device)
    objective = penalised_loss(head, pairs, penalty)
    for _ in range(NEWTON_STEPS):
        miss = (-(x @ head)).sigmoid()  # probability of the other order
        gradient = penalty * head - x.T @ (weight * miss)
        hessian = (x * (weight * miss * (1 - miss))[:, None]).T @ x + ridge
        step = torch.linalg.solve(hessian, gradient)
        # The loss is convex, so halving a step that is too long always finds a lower value.
        while (lower := penalised_loss(head - step, pairs, penalty)) > objective and float(
            step.abs().max()
        ) > TOLERANCE:
            step = step / 2
        head, objective = head - step, lower
        if float(step.abs().max()) <= TOLERANCE:
            break
    return head


def penalised_loss(head: Tensor, pairs: Differences, penalty: float) -> float:
    loss = (pairs.weight * softplus(-(pairs.features @ head))).sum()
    return float(loss + penalty * head.square().sum() / 2)


def head_loss(head: Tensor, pairs: Differences) -> float:
    """Return Σ weight · −log sigmoid(w·x) of the pairs."""
    return float(-(pairs.weight * logsigmoid(pairs.features @ head)).sum())


def _means_by_row(values: Tensor, ranking: Tensor, comparisons: Sequence[Comparison]) -> dict[int, float]:
    """Return the mean value of each ranking's pairs by `Ranking.row`. ranking [P]: the index of each pair's ranking."""
    rows = [one.row for comparison in comparisons for one in comparison.rankings]
    by_row: dict[int, list[float]] = {}
    for index, value in zip(ranking.tolist(), values.tolist(), strict=True):
        by_row.setdefault(rows[index], []).append(value)
    return {row: fmean(parts) for row, parts in by_row.items()}
