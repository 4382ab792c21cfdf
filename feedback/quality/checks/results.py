"""Single signs of careless work: pure functions of what one annotator said."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import NamedTuple

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from feedback.quality.checks import sequential_tests

FALSE_ALARM = 0.01  # of one sequential test of one careful annotator, over all their work
FAST = 3.0  # robust standard deviations below the project's log seconds
NORMAL_MAD = 1.4826  # a normal distribution's standard deviation, in median absolute deviations
OWN_AT_LEAST, OTHERS_AT_LEAST = 10, 30  # rankings, to judge a speed
COUNTED_OF_ONE = 200  # rankings of one person and size in what is usual: nobody's pace becomes the usual one

NOTHING_TO_COMPARE = _("Nothing of this was ranked by others who can be compared with, or is gold.")
NO_BEST = _("There is no ranking with a single best completion yet.")
TOO_FEW = _("There are too few rankings to judge the speed.")
AGREES = _("{same} of {count} comparisons agree with others or with gold.")
LIKE_CHANCE = _("After {count} comparisons this looked like chance: {same} agreed with others or with gold.")
FIRST_WINS = _("What is shown first wins {value:.0%} of {count} rankings; {chance:.0%} is chance.")
TAKES = _("Takes {value:.1f} s in the median; {usual:.1f} s is usual for such comparisons.")


@dataclass(frozen=True)
class Sign:
    """What was measured, on how many rankings, and whether it is beyond what chance explains."""

    value: float | None
    rankings: int
    is_flagged: bool
    told: str | Promise  # the sentence for managers, before its numbers are put in and its language is known
    numbers: Mapping[str, float] = field(default_factory=dict)
    after: int | None = None  # rankings until it was flagged

    @property
    def sentence(self) -> str:
        return str(self.told).format(value=self.value, count=self.rankings, **self.numbers)


class Answer(NamedTuple):
    """Whether an annotator preferred what another person or gold does, and the least chance of that for honest work."""

    is_same: bool
    honest: float  # above ½ to say anything


def careless(answers: Iterable[Answer]) -> Sign:
    """Does this annotator agree no more than by chance, since some moment? Answers in the order of time, independent.

    See `evidence.of_chance`. Flagged for good at the first passage: the sentence then tells of that moment.
    """
    telling = [each for each in answers if each.honest > 0.5]
    after = sequential_tests.first_passage(sequential_tests.of_chance(telling), 1 / FALSE_ALARM)
    seen = telling[:after]
    if not seen:
        return Sign(None, 0, False, NOTHING_TO_COMPARE)
    same = sum(each.is_same for each in seen)
    told = AGREES if after is None else LIKE_CHANCE
    return Sign(same / len(seen), len(seen), after is not None, told, {"same": same}, after)


def position_bias(shown_ranks: Iterable[Sequence[int]]) -> Sign:
    """Does what is shown first win too often, or too seldom? `shown_ranks` are rankings in the order of display.

    Of rankings with one best completion only; see `evidence.of_the_first_place`.
    """
    wins = [(ranks[0] == 1, len(ranks)) for ranks in shown_ranks if ranks.count(1) == 1]
    if not wins:
        return Sign(None, 0, False, NO_BEST)
    after = sequential_tests.first_passage(sequential_tests.of_the_first_place(wins), 1 / FALSE_ALARM)
    chance = sum(1 / places for _, places in wins) / len(wins)
    share = sum(is_first for is_first, _ in wins) / len(wins)
    return Sign(share, len(wins), after is not None, FIRST_WINS, {"chance": chance}, after)


class Timed(NamedTuple):
    """How long one ranking took."""

    annotator_id: int
    size: int  # completions
    seconds: float

    @property
    def log(self) -> float:
        return math.log(max(self.seconds, 0.1))


def speed(timed: Sequence[Timed]) -> dict[int, Sign]:
    """By annotator: is their typical ranking far faster than is usual for comparisons of its size?

    Log seconds, since times are skewed; in deviations from the median of the same size, where the spread is the median
    absolute deviation, which outliers do not move (Leys et al. 2013, Journal of Experimental Social Psychology 49).
    Flagged when the median of one's own is 3 below: their typical ranking is faster than 999 of 1,000. Pace is a trait,
    not chance, so there is no rate of false alarms to state: people differ by about half a deviation.
    """
    of_size: dict[int, list[float]] = defaultdict(list)
    counted: Counter[tuple[int, int]] = Counter()
    own: dict[int, list[Timed]] = defaultdict(list)
    for each in timed:
        own[each.annotator_id].append(each)
        counted[each.annotator_id, each.size] += 1
        if counted[each.annotator_id, each.size] <= COUNTED_OF_ONE:
            of_size[each.size].append(each.log)
    usual = {size: median(logs) for size, logs in of_size.items()}
    spread = {size: NORMAL_MAD * median(abs(log - usual[size]) for log in logs) for size, logs in of_size.items()}
    return {who: _speed(mine, len(timed) - len(mine), usual, spread) for who, mine in own.items()}


def _speed(mine: Sequence[Timed], others: int, usual: Mapping[int, float], spread: Mapping[int, float]) -> Sign:
    if len(mine) < OWN_AT_LEAST or others < OTHERS_AT_LEAST:
        return Sign(None, len(mine), False, TOO_FEW)
    told = {"usual": math.exp(median(usual[each.size] for each in mine))}
    ahead = [(usual[each.size] - each.log) / spread[each.size] if spread[each.size] else 0.0 for each in mine]
    seconds = math.exp(median(each.log for each in mine))
    return Sign(seconds, len(mine), median(ahead) > FAST, TAKES, told)
