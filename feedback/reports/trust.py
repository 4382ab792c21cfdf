"""Whether a project's labels can be trusted, and whose work to look at first."""

from dataclasses import dataclass
from typing import NamedTuple

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from feedback.models import Project, User
from feedback.quality import agreement, checks, reliability
from feedback.quality.agreement import Estimate

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

    @property
    def sentence(self) -> str:
        found = self.pairwise
        return str(self.told).format(value=found.value, low=found.low, high=found.high, names=self.names)

    @property
    def names(self) -> str:
        return ", ".join(sorted({flag.username for flag in self.flags}))


def flags(project: Project) -> list[Flag]:
    """By annotator: every sign that is beyond what chance explains (see `detectors` for how often it is in vain)."""
    found = [
        (user_id, name, sign.sentence)
        for user_id, signs in checks.signs_of(project).items()
        for name, sign in signs.flagged.items()
    ]
    report = reliability.latest(project)
    for each in report.annotators.all() if report else ():
        if each.is_adversarial:
            told = str(OPPOSITE).format(value=each.value, low=each.low, high=each.high)
            found.append((each.annotator_id, "opposite", told))
    names = dict(User.objects.filter(pk__in={each[0] for each in found}).values_list("pk", "username"))
    return sorted(Flag(names[user_id], sign, sentence) for user_id, sign, sentence in found)


def verdict(project: Project) -> Verdict:
    pairwise, flagged = agreement.measure(project).pairwise, tuple(flags(project))
    if pairwise.value is None or pairwise.low is None or pairwise.high is None:
        return Verdict(None, UNKNOWN, pairwise, flagged)
    if pairwise.low <= 0.5:
        return Verdict(False, NOT_AT_ALL, pairwise, flagged)
    if flagged:
        return Verdict(None, FLAGGED, pairwise, flagged)
    if pairwise.high < USUAL:
        return Verdict(None, LESS_THAN_USUAL, pairwise, flagged)
    return Verdict(True, TRUSTED, pairwise, flagged)
