"""Whether a project's labels can be trusted, and whose work to look at first."""

from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from feedback.models import Project, ReliabilityReport, User
from feedback.quality import reliability
from feedback.quality.agreement import Estimate
from feedback.quality.checks import Sign
from feedback.reports import quality_snapshot
from feedback.reports.quality_snapshot import Quality

# What two careful people reach on such comparisons: 63 % (Bai et al. 2022, HH) to 73–77 % (Ouyang et al. 2022).
USUAL = 0.63

OPPOSITE = _("Says the opposite of what others see: reliability {value:.2f} ({low:.2f} to {high:.2f}).")
UNKNOWN = _("Nobody can say yet: no comparison was ranked by two people who both had a preference.")
NOT_AT_ALL = _("No: two people agree on {value:.0%} of pairs ({low:.0%} to {high:.0%}), which may be chance.")
FLAGGED = _("With care: see the work of {names}; two people agree on {value:.0%} of pairs ({low:.0%} to {high:.0%}).")
LESS_THAN_USUAL = _(
    "With care: two people agree on {value:.0%} of pairs ({low:.0%} to {high:.0%}), less than the 63% to 77% that is "
    "usual for such work."
)
TRUSTED = _("Yes: two people agree on {value:.0%} of pairs ({low:.0%} to {high:.0%}), and nobody’s work stands out.")


class Flag(NamedTuple):
    """Why an annotator's work should be looked at."""

    username: str
    sign: str  # random_clicker, gold_failure, position_bias, speed or opposite
    sentence: str


@dataclass(frozen=True)
class Verdict:
    """One sentence on whether the labels can be trusted, and why."""

    can_be_trusted: bool | None  # None: nobody can say, or with care
    told: str | Promise
    pairwise: Estimate
    flags: tuple[Flag, ...]
    as_of: datetime
    is_current: bool  # nothing was said or decided since `as_of`

    @property
    def sentence(self) -> str:
        found = self.pairwise
        return str(self.told).format(value=found.value, low=found.low, high=found.high, names=self.names)

    @property
    def names(self) -> str:
        return ", ".join(sorted({flag.username for flag in self.flags}))


def flagged_signs(quality: Quality, report: ReliabilityReport | None) -> dict[int, dict[str, Sign]]:
    """By user id and name: every sign beyond what chance explains (see `checks` for how often it is in vain)."""
    found = {user_id: signs.flagged for user_id, signs in quality.signs.items()}
    for each in report.annotators.all() if report else ():
        if each.is_adversarial:
            numbers = {"low": each.low, "high": each.high}
            sign = Sign(each.value, each.shared + each.gold, True, OPPOSITE, numbers)
            found[each.annotator_id] = found.get(each.annotator_id, {}) | {"opposite": sign}
    return {user_id: signs for user_id, signs in found.items() if signs}


def verdict(project: Project) -> Verdict:
    quality = quality_snapshot.of(project)
    pairwise, flagged = quality.agreement.pairwise, tuple(_flags(project, quality))
    can_be_trusted, told = _told(pairwise, bool(flagged))
    return Verdict(can_be_trusted, told, pairwise, flagged, quality.as_of, quality.is_current)


def _told(pairwise: Estimate, is_flagged: bool) -> tuple[bool | None, Promise]:
    if pairwise.value is None or pairwise.low is None or pairwise.high is None:
        return None, UNKNOWN
    if pairwise.low <= 0.5:
        return False, NOT_AT_ALL
    if is_flagged:
        return None, FLAGGED
    if pairwise.high < USUAL:
        return None, LESS_THAN_USUAL
    return True, TRUSTED


def _flags(project: Project, quality: Quality) -> list[Flag]:
    found = flagged_signs(quality, reliability.latest(project))
    names = dict(User.objects.filter(pk__in=found).values_list("pk", "username"))
    return sorted(
        Flag(names[user_id], name, sign.sentence) for user_id, signs in found.items() for name, sign in signs.items()
    )
