"""Checks for careless work. A flag is not a proof: it names an annotator whose work a reviewer should look at.

`check_project(project)` reads a project's rankings once and returns the results of all annotators. The checks in
`single_checks` are pure functions.

**False-alarm rate.** The sequential tests bet against the hypothesis that an annotator works with care, and flag when
the wealth has grown by a factor of 100. By Ville's inequality (1939) this happens to a careful annotator with
probability at most 0.01 *over all their work, however often one looks* (Ramdas, Grünwald, Vovk and Shafer 2023,
"Game-theoretic statistics and safe anytime-valid inference", §2).

**Delay until a flag**, and false alarms, by simulation (`tests/feedback/test_checks.py` asserts the figures):

| annotator | flagged after, median |
|---|---|
| random clicker, compared with people who agree on 73 % of pairs | 59 comparisons; 19 of gold (pass mark 80 %) |
| random clicker among four careful annotators and an adversary | 86 comparisons |
| adversary, who states the opposite | 21 comparisons; 27 in that group |
| begins to click at random after 300 comparisons | 174 later |
| chooses the completion shown first: always; 80 % of three; 70 % of two | 11; 12; 64 rankings |
| ten times as fast as others | 10 rankings, the minimum for the check |

Of 1,500 annotators just careful enough, 8 were flagged as random clickers within 400 answers. Of 1,000 who agree as
often as others do, none was within 500. Of 800 without bias, 6 were flagged by `position_bias` within 300 rankings. Of
200 annotators in careful groups, 4 were flagged by any test.
"""

from collections.abc import Sequence

from feedback.models import Project
from feedback.quality.checks.results import CheckResult, CheckResults
from feedback.quality.ranking_rows import RankingRow

__all__ = ["CheckResult", "CheckResults", "check_project", "check_rankings"]


def check_project(project: Project) -> dict[int, CheckResults]:
    """Return the results by user id, of everybody with a live ranking in the project. Runs one query."""
    from feedback.quality.checks import all_checks  # imports numpy, which most processes never need

    return all_checks.check_project(project)


def check_rankings(rankings: Sequence[RankingRow], gold_pass_mark: float) -> dict[int, CheckResults]:
    """Return the results by user id, of a project's live rankings in the order of time."""
    from feedback.quality.checks import all_checks

    return all_checks.check_rankings(rankings, gold_pass_mark)
