"""The bet that an annotator guesses, one answer at a time. This module does not import numpy.

A bet that begins at answer j multiplies by ½/p for a right answer and by ½/(1 − p) for a wrong one, where p > ½ is the
least probability with which a careful annotator is right; its mean factor is at most 1 for an annotator who is right
with probability p or more. A share 1/(j(j + 1)) of the wealth is reserved for each j. This mixture over change points
(Shiryaev 1963; Shin, Ramdas and Rinaldo 2024, "E-detectors") also detects an annotator who becomes careless later. The
wealth is a test martingale: for a careful annotator it ever reaches 1/α with probability at most α (Ville 1939).
"""

from collections.abc import Sequence
from itertools import combinations

FALSE_ALARM_RATE = 0.01  # of one sequential test of one careful annotator, over all their work
GOLD_LIMITS = (0.6, 0.95)  # limits of the probability that a careful annotator shares a gold preference


def next_bet(bets: float, step: int, is_right: bool, probability: float) -> float:
    """Return the value of the bets that have begun, after answer `step` (from 1). Before the first it is 0."""
    return (bets + 1 / (step * (step + 1))) * 0.5 / (probability if is_right else 1 - probability)


def wealth_of(bets: float, step: int) -> float:
    """Return the wealth after answer `step`: the bets that have begun, and what is reserved for later ones."""
    return bets + 1 / (step + 1)


def careful_on_gold(pass_mark: float) -> float:
    """Return the least probability that a careful annotator shares a gold preference, from the share to qualify."""
    return min(max(pass_mark, GOLD_LIMITS[0]), GOLD_LIMITS[1])


def is_right_on_gold(ranks: Sequence[int], gold_ranks: Sequence[int]) -> bool | None:
    """Return whether a ranking shares the first preference of the right one; None if that has ties only.

    One answer per comparison, so that the answers of an annotator are independent.
    """
    for one, other in combinations(range(len(ranks)), 2):
        if gold_ranks[one] != gold_ranks[other]:
            return (ranks[one] < ranks[other]) == (gold_ranks[one] < gold_ranks[other]) and ranks[one] != ranks[other]
    return None
