"""Outcomes of the quality checks. This module does not import numpy."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

NOTHING_TO_COMPARE = _("No comparison to check: none was gold or ranked by an annotator to compare with.")
NO_SINGLE_BEST = _("There is no ranking with a single best completion yet.")
TOO_FEW = _("There are too few rankings to check the speed.")
AGREES = _("{same} of {count} comparisons agree with others or with gold.")
LIKE_CHANCE = _("After {count} comparisons this looked like chance: {same} agreed with others or with gold.")
FIRST_WINS = _("The completion shown first wins {value:.0%} of {count} rankings; {chance:.0%} is chance.")
MEDIAN_TIME = _("The median time is {value:.1f} s; {usual:.1f} s is usual for such comparisons.")


@dataclass(frozen=True)
class CheckResult:
    """The outcome of one check of one annotator: a statistic, and whether it is beyond what chance explains."""

    value: float | None
    rankings: int  # that the statistic is of
    is_flagged: bool
    template: str | Promise  # the sentence for managers, before translation and formatting
    numbers: Mapping[str, float] = field(default_factory=dict)  # further numbers of the sentence
    after: int | None = None  # rankings until it was flagged

    @property
    def sentence(self) -> str:
        return str(self.template).format(value=self.value, count=self.rankings, **self.numbers)


@dataclass(frozen=True)
class CheckResults:
    """The outcomes of all checks of one annotator. Each check has its own false-alarm rate."""

    random_clicker: CheckResult  # agreement with others and with gold, in the order of time
    gold_failure: CheckResult  # agreement with gold alone
    position_bias: CheckResult
    speed: CheckResult

    @property
    def flagged(self) -> dict[str, CheckResult]:
        return {name: result for name, result in vars(self).items() if result.is_flagged}
