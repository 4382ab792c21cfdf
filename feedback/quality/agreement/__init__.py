"""How far people agree about the same comparisons.

The unit of everything here is a pair of completions of one comparison, as two people who ranked it see it: the first
is better, the second is better, or they tie. Pairs of one comparison are not independent, so every interval treats
the comparison as the thing that was sampled.

`measure(project)` gives all that managers see; `of_annotator(project, user_id)` what one annotator may see of
themselves; `share` an interval for any share counted by comparison. They load numpy when they are first called.
"""

from collections.abc import Sequence
from datetime import datetime

from django.utils.functional import Promise

from feedback.models import Project
from feedback.quality.agreement.estimates import (
    OF_TWO_PEOPLE,
    Agreed,
    Agreement,
    Estimate,
    OfAnnotator,
    same_preference,
    wilson,
)

__all__ = [
    "Agreed",
    "Agreement",
    "Estimate",
    "OfAnnotator",
    "measure",
    "of_annotator",
    "same_preference",
    "share",
    "wilson",
]


def measure(project: Project) -> Agreement:
    """Agreement of the project's live rankings: one query, whatever there is to count."""
    from feedback.quality.agreement import report

    return report.measure(project)


def of_annotator(project: Project, user_id: int, until: datetime | None = None) -> OfAnnotator:
    """The same of one annotator alone (as it was then), reading only the comparisons that they ranked."""
    from feedback.quality.agreement import report

    return report.of_annotator(project, user_id, until)


def share(counts: Sequence[tuple[int, int]], told: str | Promise = OF_TWO_PEOPLE) -> Estimate:
    """The share Σ same / Σ all over comparisons, of (same, all) in each: see `counting.shares`."""
    from feedback.quality.agreement import counting

    return counting.share(counts, told)
