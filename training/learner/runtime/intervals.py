"""A number with its 95 % confidence interval. Standard library only."""

from typing import NamedTuple

Z_95 = 1.959963984540054  # the normal distribution's 97.5 % quantile


class Interval(NamedTuple):
    """An estimate with its 95 % confidence interval."""

    value: float
    low: float
    high: float


def normal_interval(value: float, error: float, quantile: float = Z_95) -> Interval:
    """Return value ± quantile · standard error."""
    return Interval(value, value - quantile * error, value + quantile * error)
