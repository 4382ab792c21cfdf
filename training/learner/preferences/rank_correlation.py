"""Spearman's rank correlation with an interval from a bootstrap over prompts: pure functions."""

from typing import NamedTuple

import torch
from torch import Tensor

from training.learner.runtime.intervals import MIN_VALUES_FOR_INTERVAL

RESAMPLES = 1000
MAX_CELLS = 4_000_000  # values of one batch of resamples, so that memory stays bounded


class RankCorrelation(NamedTuple):
    """A correlation of N values; None where it is not defined, and without an interval for few prompts."""

    value: float | None
    low: float | None
    high: float | None
    size: int  # N
    prompts: int


def spearman(x: Tensor, y: Tensor, weight: Tensor | None = None) -> Tensor:
    """Return Spearman's correlation (1904) of x and y [N]: Pearson's of their mid-ranks; NaN if one is constant.

    weight [..., N]: whole numbers, how often each value occurs; the result has the shape [...].
    """
    weight = torch.ones(len(x), dtype=torch.float64) if weight is None else weight.double()
    return _weighted_pearson(mid_ranks(x, weight), mid_ranks(y, weight), weight)


def mid_ranks(values: Tensor, weight: Tensor) -> Tensor:
    """Return the ranks [..., N] of values [N] that occur `weight` [..., N] times; equal values share their mean rank.

    Ranks are from 0.5 to Σ weight − 0.5; a constant shift changes no correlation.
    """
    _, level = values.double().unique(return_inverse=True)
    counts = torch.zeros(*weight.shape[:-1], int(level.max()) + 1, dtype=torch.float64).index_add(-1, level, weight)
    return (counts.cumsum(-1) - counts / 2)[..., level]


def _weighted_pearson(x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
    share = weight / weight.sum(-1, keepdim=True)
    x = x - (share * x).sum(-1, keepdim=True)
    y = y - (share * y).sum(-1, keepdim=True)
    covariance = (share * x * y).sum(-1)
    return covariance / ((share * x * x).sum(-1) * (share * y * y).sum(-1)).sqrt()


def rank_correlation(x: Tensor, y: Tensor, prompt: Tensor, seed: int = 0) -> RankCorrelation:
    """Return Spearman's correlation of x and y [N] with its 95 % interval.

    The interval has the quantiles of a bootstrap that resamples prompts, because values of one prompt are not
    independent (Field & Welsh 2007, "Bootstrapping clustered data"). Below 30 prompts there is none, as elsewhere.
    """
    prompts, which = prompt.unique(return_inverse=True)
    value = float(spearman(x, y)) if len(x) > 1 else float("nan")
    if value != value:
        return RankCorrelation(None, None, None, len(x), len(prompts))
    if len(prompts) < MIN_VALUES_FOR_INTERVAL:
        return RankCorrelation(value, None, None, len(x), len(prompts))
    generator = torch.Generator().manual_seed(seed)
    batch = max(1, MAX_CELLS // len(x))
    parts = []
    for begin in range(0, RESAMPLES, batch):
        shape = (min(batch, RESAMPLES - begin), len(prompts))
        drawn = torch.randint(len(prompts), shape, generator=generator)
        times = torch.zeros(shape, dtype=torch.float64).scatter_add(1, drawn, torch.ones(shape, dtype=torch.float64))
        parts.append(spearman(x, y, times[:, which]))
    drawn_values = torch.cat(parts)
    low, high = drawn_values[~drawn_values.isnan()].quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return RankCorrelation(value, low, high, len(x), len(prompts))


def pairs_of_raters(values: list[list[float]]) -> tuple[Tensor, Tensor, Tensor]:
    """Return x, y and the index of the completion [M] for every ordered pair of two people's ratings of a completion.

    values: the ratings of each completion, one per person. Both orders of a pair are there, since neither person comes
    first (double entry, as for an intraclass correlation).
    """
    rows = [
        (one, other, number)
        for number, ratings in enumerate(values)
        for place, one in enumerate(ratings)
        for other_place, other in enumerate(ratings)
        if place != other_place
    ]
    x, y, numbers = zip(*rows, strict=True) if rows else ((), (), ())
    return (
        torch.tensor(x, dtype=torch.float64),
        torch.tensor(y, dtype=torch.float64),
        torch.tensor(numbers, dtype=torch.int64),
    )
