"""Agreement of annotators about the same comparisons.

The unit is a pair of completions of one comparison, ranked by two annotators: each prefers the first or the second, or
ties them. Pairs of one comparison are not independent, so every interval takes the comparison as the sampling unit.

`measure(project)` returns what managers see, `of_annotator(project, user_id)` what one annotator may see of their own
work, and `share` an interval for any share that is counted by comparison. numpy is imported by the first call, because
most processes never need it.
"""

from collections.abc import Sequence
from datetime import datetime

from django.utils.functional import Promise

from feedback.models import Project
from feedback.quality.agreement.estimates import (
    PAIRWISE,
    Agreement,
    AgreementMeasures,
    AnnotatorAgreement,
    Estimate,
    count_equal_preferences,
    undefined,
    wilson_interval,
)
from feedback.quality.ranking_rows import RankingRow

__all__ = [
    "Agreement",
    "AgreementMeasures",
    "AnnotatorAgreement",
    "Estimate",
    "count_equal_preferences",
    "measure",
    "measure_rankings",
    "of_annotator",
    "share",
    "undefined",
    "wilson_interval",
]


def measure(project: Project) -> Agreement:
    """Return the agreement of the project's live rankings. Runs one query."""
    from feedback.quality.agreement import report

    return report.measure(project)


def measure_rankings(rankings: Sequence[RankingRow]) -> Agreement:
    """Return the agreement of a project's live rankings, which the caller has read."""
    from feedback.quality.agreement import report

    return report.measure_rankings(rankings)


def of_annotator(project: Project, user_id: int, until: datetime | None = None) -> AnnotatorAgreement:
    """Return one annotator's agreement with others, at the time `until`; reads only comparisons they ranked."""
    from feedback.quality.agreement import report

    return report.of_annotator(project, user_id, until)


def share(counts: Sequence[tuple[int, int]], template: str | Promise = PAIRWISE) -> Estimate:
    """Return the share Σ equal / Σ total of (equal, total) per comparison; see `counting.shares`."""
    from feedback.quality.agreement import counting

    return counting.share(counts, template)
