"""A number with its 95 % confidence interval. Standard library only."""

import math
from collections.abc import Sequence
from statistics import fmean, stdev
from typing import NamedTuple

Z_95 = 1.959963984540054  # the normal distribution's 97.5 % quantile
MIN_VALUES_FOR_INTERVAL = 30  # with fewer, a normal interval of skewed values covers too seldom


class Interval(NamedTuple):
    """An estimate with its 95 % confidence interval."""

    value: float
    low: float
    high: float


def normal_interval(value: float, error: float, quantile: float = Z_95) -> Interval:
    """Return value ± quantile · standard error."""
    return Interval(value, value - quantile * error, value + quantile * error)


def mean_with_interval(name: str, values: Sequence[float]) -> dict[str, float]:
    """Return the mean as `name`, and from 30 values on its 95 % interval as `name_low` and `name_high`.

    The interval is the normal one for the mean of independent values: mean ± 1.96 standard errors, s / √n, of which one
    is `name_error`.
    """
    mean, error = fmean(values), standard_error(values)
    if error is None:
        return {name: mean}
    _, low, high = normal_interval(mean, error)
    return {name: mean, f"{name}_low": low, f"{name}_high": high, f"{name}_error": error}


def standard_error(values: Sequence[float]) -> float | None:
    """Return the standard error s / √n of the mean of independent values; None of fewer than 30."""
    return stdev(values) / math.sqrt(len(values)) if len(values) >= MIN_VALUES_FOR_INTERVAL else None
