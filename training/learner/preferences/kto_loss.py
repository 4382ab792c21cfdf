"""Loss of single labels (KTO, Ethayarajh et al. 2024), as pure functions of tensors.

With the log-ratio r(x, y) = log π(y|x) − log π_ref(y|x) in nats and the reference point z0, a completion has the value

    v(x, y) = λ_D · sigmoid(β·(r(x, y) − z0))   if it is desirable,
    v(x, y) = λ_U · sigmoid(β·(z0 − r(x, y)))   if it is undesirable,

and the loss is the mean of λ_y − v(x, y) (equation 8). z0 stands for KL(π ‖ π_ref). It is estimated from *mismatched*
pairs, a prompt of the batch with a completion of another prompt: ẑ0 = max(0, mean of their r). No gradient passes
through it.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class LabelWeights(NamedTuple):
    """λ_D and λ_U."""

    desirable: float
    undesirable: float


def kto_losses(
    log_ratios: Tensor,
    reference_point: float,
    desirable: Tensor,
    undesirable: Tensor,
    weights: LabelWeights,
    beta: float,
) -> Tensor:
    """Return the losses [N] of completions with log-ratios [N], summed over their labels.

    desirable, undesirable: [N], the sums of the weights of a completion's labels of either kind.
    """
    distance = beta * (log_ratios - reference_point)
    # λ − λ·sigmoid(d) = λ·sigmoid(−d), without the cancellation.
    return weights.desirable * desirable * torch.sigmoid(-distance) + (
        weights.undesirable * undesirable * torch.sigmoid(distance)
    )


def balanced_weights(weights: LabelWeights, desirable: float, undesirable: float, balances: bool) -> LabelWeights:
    """Return the weights, with that of the rarer kind of label raised so that both kinds weigh the same in total.

    desirable, undesirable: the sums of the labels' weights n_D and n_U, above 0. With λ_D = λ_U the result has
    λ_D·n_D = λ_U·n_U, the lower end of the range that Ethayarajh et al. 2024 advise (§4).
    """
    if not balances:
        return weights
    most = max(desirable, undesirable)
    return LabelWeights(weights.desirable * most / desirable, weights.undesirable * most / undesirable)


def mismatched(prompts: Sequence[object], fits: Callable[[int, int], bool] = lambda i, j: True) -> list[int]:
    """Return the index of each item's next item with another prompt, around the end; its own index if there is none.

    The completion of that item under the prompt of this one is the mismatched pair. fits: whether the completion of
    item j may stand under the prompt of item i.
    """
    count = len(prompts)

    def partner(i: int) -> int:
        following = (j % count for j in range(i + 1, i + count))
        return next((j for j in following if prompts[j] != prompts[i] and fits(i, j)), i)

    return [partner(i) for i in range(count)]


def separation(log_ratios: Tensor, desirable: Tensor, undesirable: Tensor) -> float | None:
    """Return the probability that a desirable completion has a higher log-ratio than an undesirable one.

    Ties count half (the area under the ROC curve; Mann & Whitney 1947). desirable, undesirable: [N] weights of labels.
    None if one kind is missing.
    """
    log_ratios, desirable, undesirable = log_ratios.double(), desirable.double(), undesirable.double()
    total = desirable.sum() * undesirable.sum()
    if not total:
        return None
    order = log_ratios.argsort()
    values, groups = log_ratios[order].unique_consecutive(return_inverse=True)
    low = torch.zeros(len(values), dtype=torch.float64).index_add_(0, groups, undesirable[order])
    high = torch.zeros(len(values), dtype=torch.float64).index_add_(0, groups, desirable[order])
    below = low.cumsum(0) - low
    return float((high * (below + low / 2)).sum() / total)
