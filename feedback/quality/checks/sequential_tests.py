"""Sequential tests by betting: wealth processes that start at 1 and are not expected to grow for a careful annotator.

Such a process (a test martingale) ever reaches 1/α with probability at most α (Ville 1939). So the test may be looked
at after every answer, without end, and keeps its false-alarm rate.
"""

from collections.abc import Iterable

import numpy as np

from feedback.quality.checks import guessing
from feedback.quality.ranking_arrays import Booleans, Floats, Integers

# Alternatives to chance in `first_place_wealth`: factors of the odds that the completion shown first wins.
ALTERNATIVE_ODDS = tuple(2.0**power for power in (-4, -2, -1, -0.5, 0.5, 1, 2, 4))


def first_passage(wealth: Iterable[float], level: float) -> int | None:
    """Return the number of steps until the process first reaches the level; None if it never does."""
    return next((step for step, value in enumerate(wealth, start=1) if value >= level), None)


def guessing_wealth(answers: Iterable[tuple[bool, float]]) -> Iterable[float]:
    """Yield the wealth after each answer of a bet that the annotator guesses from some answer on.

    answers: (is right, the least probability p > ½ with which a careful annotator is right). See `guessing`.
    """
    bets = 0.0
    for step, (is_right, probability) in enumerate(answers, start=1):
        bets = guessing.next_bet(bets, step, is_right, probability)
        yield guessing.wealth_of(bets, step)


def first_place_wealth(wins: Booleans, sizes: Integers) -> Floats:
    """Return the wealth [N] after each ranking of a bet that the completion shown first wins too often or too seldom.

    wins: [N] whether the completion shown first won; sizes: [N] numbers K of completions. The display order is random,
    so by chance the first completion wins exactly 1/K of them. The wealth is split evenly over ALTERNATIVE_ODDS θ: a
    win multiplies by θ·K/(θ + K − 1), any other outcome by K/(θ + K − 1).
    """
    is_win, size = wins[:, None], sizes[:, None]
    odds = np.array(ALTERNATIVE_ODDS)
    factors = size * np.where(is_win, odds, 1.0) / (odds + size - 1)
    with np.errstate(over="ignore"):  # infinite wealth is above any level, too
        return np.cumprod(factors, axis=0).mean(axis=1)
