"""The verdict on a project's labels: whether they can be trusted, and whose work to look at first."""

from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from feedback.models import Project, ReliabilityReport, User
from feedback.quality import reliability
from feedback.quality.agreement import Estimate
from feedback.quality.checks import CheckResult
from feedback.reports import quality_snapshot
from feedback.reports.quality_snapshot import Quality

# Lower end of the agreement of careful annotators: 63 % (Bai et al. 2022, HH) to 73–77 % (Ouyang et al. 2022).
USUAL_AGREEMENT = 0.63

OPPOSITE = _("Ranks opposite to the others: reliability {value:.2f} ({low:.2f} to {high:.2f}).")
UNKNOWN = _("Unknown: no pair of completions was ranked by two people who both had a preference.")
NOT_AT_ALL = _("No: two people agree on {value:.0%} of pairs ({low:.0%} to {high:.0%}), which may be chance.")
FLAGGED = _(
    "With care: look at the work of {names}; two people agree on {value:.0%} of pairs ({low:.0%} to {high:.0%})."
)
LESS_THAN_USUAL = _(
    "With care: two people agree on {value:.0%} of pairs ({low:.0%} to {high:.0%}), less than the 63% to 77% that is "
    "usual for such work."
)
TRUSTED = _(
    "Yes: two people agree on {value:.0%} of pairs ({low:.0%} to {high:.0%}), and no check flags anybody's work."
)


class Flag(NamedTuple):
    """The reason to look at an annotator's work."""

    username: str
    check: str  # random_clicker, gold_failure, position_bias, speed or opposite
    sentence: str


@dataclass(frozen=True)
class Verdict:
    """A sentence that states whether the labels can be trusted, and the figures behind it."""

    can_be_trusted: bool | None  # None: unknown, or with care
    template: str | Promise  # the sentence before translation and formatting
    pairwise: Estimate
    flags: tuple[Flag, ...]
    as_of: datetime
    is_current: bool  # the record has not changed since `as_of`

    @property
    def sentence(self) -> str:
        pairwise = self.pairwise
        numbers = {"value": pairwise.value, "low": pairwise.low, "high": pairwise.high}
        return str(self.template).format(names=self.names, **numbers)

    @property
    def names(self) -> str:
        return ", ".join(sorted({flag.username for flag in self.flags}))


def flagged_checks(quality: Quality, report: ReliabilityReport | None) -> dict[int, dict[str, CheckResult]]:
    """Return every check that flags an annotator, by user id and name. `quality.checks` has the error rates."""
    flagged = {user_id: results.flagged for user_id, results in quality.checks.items()}
    for estimate in report.annotators.all() if report else ():
        if estimate.is_adversarial:
            numbers = {"low": estimate.low, "high": estimate.high}
            result = CheckResult(estimate.value, estimate.shared + estimate.gold, True, OPPOSITE, numbers)
            flagged[estimate.annotator_id] = flagged.get(estimate.annotator_id, {}) | {"opposite": result}
    return {user_id: results for user_id, results in flagged.items() if results}


def verdict(project: Project) -> Verdict:
    quality = quality_snapshot.get_quality(project)
    pairwise, flags = quality.agreement.pairwise, tuple(_flags(project, quality))
    can_be_trusted, template = _judgement(pairwise, bool(flags))
    return Verdict(can_be_trusted, template, pairwise, flags, quality.as_of, quality.is_current)


def _judgement(pairwise: Estimate, is_flagged: bool) -> tuple[bool | None, Promise]:
    if pairwise.value is None or pairwise.low is None or pairwise.high is None:
        return None, UNKNOWN
    if pairwise.low <= 0.5:
        return False, NOT_AT_ALL
    if is_flagged:
        return None, FLAGGED
    if pairwise.high < USUAL_AGREEMENT:
        return None, LESS_THAN_USUAL
    return True, TRUSTED


def _flags(project: Project, quality: Quality) -> list[Flag]:
    flagged = flagged_checks(quality, reliability.latest(project))
    names = dict(User.objects.filter(pk__in=flagged).values_list("pk", "username"))
    return sorted(
        Flag(names[user_id], check, result.sentence)
        for user_id, results in flagged.items()
        for check, result in results.items()
    )
