"""Bets against honesty: processes that start at 1 and that are not expected to grow while it holds.

Such a process (a test martingale) passes 1/α at any time with a chance of at most α (Ville 1939), so one may look after
every answer, for ever, and stop at will.
"""

from collections.abc import Iterable

ALTERNATIVES = tuple(2.0**power for power in (-4, -2, -1, -0.5, 0.5, 1, 2, 4))  # odds of the first place


def first_passage(process: Iterable[float], level: float) -> int | None:
    """After how many steps the process first is at or above the level; None: never."""
    return next((step for step, value in enumerate(process, start=1) if value >= level), None)


def of_chance(answers: Iterable[tuple[bool, float]]) -> Iterable[float]:
    """The stake after each answer, on «from some answer on it is a coin», against «right with at least this chance».

    answers: (whether it was right, the least chance with which an honest person is right, above ½). A bet that begins
    at answer j multiplies by ½/p for a right one and by ½/(1 − p) for a wrong one, whose mean is at most 1 for whoever
    is right with p or more. A share 1/(j(j + 1)) of the stake waits for each j, the beginning of a mixture over change
    points (Shiryaev 1963; Shin, Ramdas and Rinaldo 2024, «E-detectors»): who grows careless later is found too.
    """
    begun = 0.0
    for step, (is_right, honest) in enumerate(answers, start=1):
        begun = (begun + 1 / (step * (step + 1))) * 0.5 / (honest if is_right else 1 - honest)
        yield begun + 1 / (step + 1)


def of_the_first_place(wins: Iterable[tuple[bool, int]]) -> Iterable[float]:
    """The stake after each ranking, on «what is shown first wins too often, or too seldom», against chance.

    wins: (whether the first place won, of how many places). The order shown is drawn at random, so by chance it wins
    1/K of them, exactly. The bets are that its odds are θ times those of chance, one for each of ALTERNATIVES in equal
    parts: a win multiplies by θ·K/(θ + K − 1), any other by K/(θ + K − 1).
    """
    stakes = [1 / len(ALTERNATIVES)] * len(ALTERNATIVES)
    for is_first, places in wins:
        stakes = [
            stake * places * (odds if is_first else 1.0) / (odds + places - 1)
            for stake, odds in zip(stakes, ALTERNATIVES, strict=True)
        ]
        yield sum(stakes)
