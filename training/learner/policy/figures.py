"""Figures of an evaluation: means and shares over prompts, and diversity, each with its 95 % interval.

A figure is {"value", "low", "high", "count"}; count is the number of prompts. Completions of one prompt are a cluster,
since they share its properties, so intervals come from the differences between prompts. Without an interval, `low` and
`high` are None.
"""

import math
from collections import Counter
from collections.abc import Sequence
from itertools import groupby, pairwise
from statistics import fmean, stdev
from typing import Any

import torch

from training.learner.preferences.calibration import accuracy_interval
from training.learner.runtime.intervals import MIN_VALUES_FOR_INTERVAL, Interval, normal_interval

Figure = dict[str, Any]


def mean_figure(prompts: Sequence[int], values: Sequence[float]) -> Figure:
    """Return the mean of the prompts' means, ± 1.96 standard errors from 30 prompts on.

    prompts: [N], the prompt of each completion; those of one prompt follow each other. values: [N].
    """
    rows = groupby(zip(prompts, values, strict=True), lambda row: row[0])
    means = [fmean(value for _, value in of_prompt) for _, of_prompt in rows]
    if len(means) < MIN_VALUES_FOR_INTERVAL:
        return without_interval(fmean(means), len(means))
    return as_figure(normal_interval(fmean(means), stdev(means) / math.sqrt(len(means))), len(means))


def share_figure(prompts: Sequence[int], values: Sequence[float]) -> Figure:
    """Return the mean of values from 0 to 1, arguments as in `mean_figure`.

    If all are 0 or 1 it is a share: its interval is Wilson's, which has a width at a share of 0 or 1, too.
    """
    if not set(values) <= {0, 1}:
        figure = mean_figure(prompts, values)
        if figure["low"] is None:
            return figure
        return figure | {"low": max(figure["low"], 0.0), "high": min(figure["high"], 1.0)}
    interval = accuracy_interval(torch.tensor(values, dtype=torch.float64), torch.tensor(prompts))
    return as_figure(interval, len(set(prompts)))


def distinct_figure(texts: Sequence[Sequence[Sequence[int]]], n: int) -> Figure | None:
    """Return distinct-n: the number of distinct n-grams divided by the number of tokens; None without any token.

    texts: token sequences of every prompt. Source: Li et al. 2016, "A diversity-promoting objective function for neural
    conversation models", §5.3. It falls as texts get more, so only figures of equally many prompts compare.

    The interval is ± 1.96 standard errors of the jackknife over prompts (Efron and Stein 1981, whose estimate of the
    variance is at least as large as the true one on average). A bootstrap would not do: it repeats prompts, so it sees
    fewer distinct n-grams than there are.
    """
    tokens = [sum(map(len, of_prompt)) for of_prompt in texts]
    grams = [{gram for text in of_prompt for gram in ngrams(text, n)} for of_prompt in texts]
    prompts_with = Counter(gram for of_prompt in grams for gram in of_prompt)
    total, count = sum(tokens), len(texts)
    if not total:
        return None
    value = len(prompts_with) / total
    if count < MIN_VALUES_FOR_INTERVAL or max(tokens) == total:
        return without_interval(value, count)
    of_one_prompt = [sum(prompts_with[gram] == 1 for gram in of_prompt) for of_prompt in grams]
    without = [
        (len(prompts_with) - alone) / (total - length) for alone, length in zip(of_one_prompt, tokens, strict=True)
    ]
    error = math.sqrt((count - 1) / count * sum((other - fmean(without)) ** 2 for other in without))
    _, low, high = normal_interval(value, error)
    return as_figure(Interval(value, max(low, 0.0), min(high, 1.0)), count)


def ngrams(tokens: Sequence[int], n: int) -> list[tuple[int, ...]]:
    """Return the n-grams of a text, for n = 1 or 2."""
    return [(token,) for token in tokens] if n == 1 else list(pairwise(tokens))


def as_figure(interval: Interval, count: int) -> Figure:
    return interval._asdict() | {"count": count}


def without_interval(value: float, count: int) -> Figure:
    return {"value": value, "low": None, "high": None, "count": count}
