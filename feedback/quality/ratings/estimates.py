"""Ratings with their intervals. This module does not import numpy."""

import math
from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """The state of a source: rated, or the reason why it is not."""

    RATED = "rated"
    ONLY_WINS = "only_wins"  # neither lost nor tied: its rating has no upper bound
    ONLY_LOSSES = "only_losses"  # neither won nor tied: its rating has no lower bound
    DISCONNECTED = "disconnected"  # no path of wins or ties leads both from the rated sources to it and back
    UNDETERMINED = "undetermined"  # connected, but the likelihood has no finite maximum; see `connectivity`


@dataclass(frozen=True)
class Rating:
    """The rating of one source with its 95 % interval, and its counts over all other sources."""

    source_id: int
    status: Status
    value: float | None  # None: not rated
    low: float | None  # None: not rated, or too few rankings for an interval
    high: float | None
    wins: int
    ties: int
    losses: int


@dataclass(frozen=True)
class Coefficient:
    """A further parameter with its 95 % interval. All are None if the rankings do not determine it."""

    name: str
    value: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class WinRate:
    """Share of the preferences between two sources that are for the first, a tie as half of one; 95 % interval."""

    source_id: int
    other_id: int
    value: float
    low: float
    high: float
    wins: int
    ties: int
    losses: int
    prompts: int

    @property
    def preferences(self) -> int:
        return self.wins + self.ties + self.losses

    def reversed(self) -> "WinRate":
        """Return the win rate as the second source sees it."""
        ids, interval = (self.other_id, self.source_id), (1 - self.value, 1 - self.high, 1 - self.low)
        return WinRate(*ids, *interval, self.losses, self.ties, self.wins, self.prompts)


@dataclass(frozen=True)
class SliceRate:
    """The win rate on some of the prompts, and how much higher it is than on the others."""

    kind: str  # split, length or metadata
    key: str  # of the metadata; "" for the other kinds
    value: str
    rate: WinRate
    difference: float | None  # None: too few prompts in the slice or outside
    p_value: float | None  # that there is no difference, with Holm's correction for the number of slices


@dataclass(frozen=True)
class Ratings:
    """The ratings of a project's sources."""

    ratings: list[Rating]  # rated ones first, the best one first; the others by source
    sources: list[int]  # ids in the order of the two matrices
    wins: list[list[int]]  # preferences for the row's source over the column's
    ties: list[list[int]]
    style: list[Coefficient]  # log-odds per unit of difference in a style covariate
    log_nu: Coefficient | None  # logarithm of Davidson's ν; None: no ties
    first_shown: Coefficient | None  # log-odds for the completion shown first; None: no source is rated
    preferences: int  # pairs of completions by different sources
    prompts: int
    annotators: int
    # Whether the intervals include the differences between annotators. If not, they hold for these annotators only.
    covers_annotators: bool
    rated: list[int]  # ids in the order of the covariance
    covariance: list[list[float]]  # of the ratings; empty: too few rankings for intervals
    quantile: float  # interval = value ± quantile · standard error
    degrees: int = 0  # of freedom of Student's t, whose quantile that is

    def difference(self, source_id: int, other_id: int) -> Coefficient:
        """Return how much higher the first source is rated, with the interval of the difference.

        Raises ValueError if one of the two is not rated.
        """
        values = {rating.source_id: rating.value for rating in self.ratings}
        i, j = self.rated.index(source_id), self.rated.index(other_id)
        value = (values[source_id] or 0.0) - (values[other_id] or 0.0)
        if not self.covariance:
            return Coefficient("difference", value)
        variance = self.covariance[i][i] + self.covariance[j][j] - 2 * self.covariance[i][j]
        margin = self.quantile * math.sqrt(max(0.0, variance))
        return Coefficient("difference", value, value - margin, value + margin)
