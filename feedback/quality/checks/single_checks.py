"""The checks for careless work: pure functions of the rankings of one annotator, except for `speed`."""

import math
from collections.abc import Iterable, Mapping

import numpy as np

from feedback.quality.checks import sequential_tests
from feedback.quality.checks.guessing import FALSE_ALARM_RATE
from feedback.quality.checks.results import (
    AGREES,
    FIRST_WINS,
    LIKE_CHANCE,
    MEDIAN_TIME,
    NO_SINGLE_BEST,
    NOTHING_TO_COMPARE,
    TOO_FEW,
    CheckResult,
)
from feedback.quality.ranking_arrays import Booleans, Floats, Integers

MAX_DEVIATIONS = 3.0  # faster than usual, in robust standard deviations of log seconds
MAD_TO_DEVIATION = 1.4826  # standard deviation of a normal distribution, in median absolute deviations
MIN_RANKINGS, MIN_OTHER_RANKINGS = 10, 30  # of the annotator and of all others, to check the speed
MAX_PER_ANNOTATOR = 200  # rankings of one annotator and size that enter the usual speed, so that nobody dominates it


def chance_agreement(answers: Iterable[tuple[bool, float]]) -> CheckResult:
    """Test whether an annotator, from some moment on, agrees no more than by chance.

    answers: independent, in the order of time: (whether the annotator agrees with another annotator or with gold, the
    least probability of that for careful work). Answers with a probability of ½ or less carry no information. See
    `sequential_tests.guessing_wealth`. A flag is permanent: the result then describes the moment of the flag.
    """
    informative = [answer for answer in answers if answer[1] > 0.5]
    wealth = sequential_tests.guessing_wealth(informative)
    after = sequential_tests.first_passage(wealth, 1 / FALSE_ALARM_RATE)
    used = informative[:after]
    if not used:
        return CheckResult(None, 0, False, NOTHING_TO_COMPARE)
    same = sum(is_same for is_same, _ in used)
    template = AGREES if after is None else LIKE_CHANCE
    return CheckResult(same / len(used), len(used), after is not None, template, {"same": same}, after)


def position_bias(wins: Booleans, sizes: Integers) -> CheckResult:
    """Test whether the completion shown first wins too often or too seldom.

    wins, sizes: [N] of the annotator's rankings with a single best completion: whether it was shown first, and how many
    completions there were. See `sequential_tests.first_place_wealth`.
    """
    if not len(wins):
        return CheckResult(None, 0, False, NO_SINGLE_BEST)
    wealth = sequential_tests.first_place_wealth(wins, sizes)
    after = sequential_tests.first_passage(wealth.tolist(), 1 / FALSE_ALARM_RATE)
    chance = sum((1 / sizes).tolist()) / len(sizes)
    value = int(wins.sum()) / len(wins)
    return CheckResult(value, len(wins), after is not None, FIRST_WINS, {"chance": chance}, after)


def speed(annotator: Integers, size: Integers, seconds: Floats) -> dict[int, CheckResult]:
    """Check for each annotator whether the median ranking is far faster than usual for comparisons of its size.

    annotator, size, seconds: [N] of all rankings, in the order of time. Times are skewed, so log seconds are used. They
    are measured in robust standard deviations from the median of the same size; the spread is the median absolute
    deviation, which outliers do not move (Leys et al. 2013, Journal of Experimental Social Psychology 49). The check
    flags an annotator whose median is 3 below: the median ranking is faster than 999 of 1,000. Pace is a trait and not
    random, so there is no false-alarm rate; annotators differ by about half a deviation.
    """
    # math.log, because numpy's logarithm may differ in the last bit between processors.
    logs = np.array([math.log(value) for value in np.maximum(seconds, 0.1).tolist()])
    usual, spread = _usual_speeds(annotator, size, logs)
    results = {}
    for user_id in np.unique(annotator).tolist():
        rankings = np.flatnonzero(annotator == user_id)
        others = len(annotator) - len(rankings)
        results[user_id] = _speed(size[rankings], logs[rankings], others, usual, spread)
    return results


def _usual_speeds(annotator: Integers, size: Integers, logs: Floats) -> tuple[dict[int, float], dict[int, float]]:
    """Return the median and the robust standard deviation of log seconds by size."""
    is_used = _occurrence(annotator, size) < MAX_PER_ANNOTATOR
    usual, spread = {}, {}
    for one_size in np.unique(size).tolist():
        used = logs[is_used & (size == one_size)]
        usual[one_size] = float(np.median(used))
        spread[one_size] = MAD_TO_DEVIATION * float(np.median(np.abs(used - usual[one_size])))
    return usual, spread


def _occurrence(annotator: Integers, size: Integers) -> Integers:
    """Return [N] how many earlier rankings there are of the same annotator and size."""
    order = np.lexsort((size, annotator))
    is_start = np.ones(len(order), dtype=bool)
    is_start[1:] = (np.diff(annotator[order]) != 0) | (np.diff(size[order]) != 0)
    places = np.arange(len(order))
    occurrence = np.empty(len(order), dtype=np.int64)
    occurrence[order] = places - np.maximum.accumulate(np.where(is_start, places, 0))
    return occurrence


def _speed(
    size: Integers, logs: Floats, others: int, usual: Mapping[int, float], spread: Mapping[int, float]
) -> CheckResult:
    if len(logs) < MIN_RANKINGS or others < MIN_OTHER_RANKINGS:
        return CheckResult(None, len(logs), False, TOO_FEW)
    usual_logs = np.array([usual[one_size] for one_size in size.tolist()])
    deviations = np.array([spread[one_size] for one_size in size.tolist()])
    ahead = np.divide(usual_logs - logs, deviations, out=np.zeros(len(logs)), where=deviations > 0)
    numbers = {"usual": math.exp(np.median(usual_logs))}
    seconds = math.exp(np.median(logs))
    is_flagged = bool(np.median(ahead) > MAX_DEVIATIONS)
    return CheckResult(seconds, len(logs), is_flagged, MEDIAN_TIME, numbers)
