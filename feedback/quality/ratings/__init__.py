"""Ratings of a project's sources from all rankings: a Bradley–Terry model with ties, and intervals.

A rating is a log-odds: of two sources whose ratings differ by d, the higher one wins a share 1/(1 + e⁻ᵈ) of the
preferences without ties. The ratings of a project have mean 0. `bradley_terry` describes the model, `covariance` the
intervals, `connectivity` the sources that cannot be rated, `win_rates` the shares by two sources and `slices` those on
some of the prompts. numpy is imported by the first call, because most
processes never need it.
"""

from collections.abc import Sequence

from feedback.models import Project
from feedback.quality.ratings.estimates import Coefficient, Rating, Ratings, SliceRate, Status, WinRate
from feedback.quality.ratings.ranked_sources import RankedSources

__all__ = [
    "Coefficient",
    "RankedSources",
    "Rating",
    "Ratings",
    "SliceRate",
    "Status",
    "WinRate",
    "rate",
    "rate_rankings",
]


def rate(project: Project, *, with_style: bool = False, replicates: int = 0) -> Ratings:
    """Return the ratings of the sources in the project's live rankings. Runs one query.

    The parameters are those of `rate_rankings`; `ranked_sources.STYLE` describes the style of a completion.
    """
    from feedback.quality.ratings import ranked_sources

    rankings = ranked_sources.read(project, with_style=with_style)
    return rate_rankings(rankings, ranked_sources.STYLE_NAMES if with_style else (), replicates)


def rate_rankings(rankings: Sequence[RankedSources], style_names: Sequence[str] = (), replicates: int = 0) -> Ratings:
    """Return the ratings of the sources in rankings, which the caller has read.

    style_names: the ratings are then those of sources that write in the same style. replicates: of a cluster bootstrap
    for the intervals; 0: the sandwich estimator. Formatting in which few pairs differ is left out: see
    `ranked_sources.MIN_DIFFERENT`.
    """
    from feedback.quality.ratings import ranked_sources, report

    return report.rate_rankings(rankings, style_names, replicates, ranked_sources.MIN_DIFFERENT)
