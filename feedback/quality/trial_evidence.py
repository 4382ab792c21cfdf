"""Always-valid evidence of a blind trial: does the candidate win more than half of the decisive votes?

One may look after every vote and stop whenever one likes. The win share p of the candidate is tested by a mixture
sequential test: the likelihood ratio of p against a Beta(a, a) mixture (Robbins 1970, "Statistical methods related to
the law of the iterated logarithm"; Johari, Koomen, Pekelis and Walsh 2022, "Always valid inference: continuous
monitoring of A/B tests"). Under p the ratio

    M(p) = B(a + wins, a + losses) / (B(a, a) · p^wins · (1 − p)^losses)

is a martingale with mean 1. So by Ville's inequality (1939) it ever reaches 1 / alpha with probability at most alpha.
The values of p at which it has not reached that are a confidence sequence: an interval that holds p at all times at
once with probability 1 − alpha (Howard, Ramdas, McAuliffe and Sekhon 2021, "Time-uniform, nonparametric, nonasymptotic
confidence sequences").

**What is counted.** A vote is one annotator's preference between the two sources on one prompt. A tie says nothing
about which source is better, so it is counted but not tested. Votes on the same two completions depend on each other:
only the first decisive vote of a comparison is tested, and the rest enter the ratings of sources. For the same reason a
completion may be in one comparison of a trial only. With more than two sources each pair is tested with alpha divided
by the number of pairs (Bonferroni).

Under equal sources the candidate wins each decisive vote with probability one half, whoever votes and whatever they
voted before, because the display is blind and shuffled: the false-alarm rate needs no further assumption. The interval
assumes that prompts and annotators come in random order.

**False alarms and delay**, computed exactly over all sequences of votes (`tests/feedback/test_trial_evidence.py`), with
alpha 5 %:

| true share of decisive votes | declared within 2,000 votes | decisive votes until half of all trials are declared |
|---|---|---|
| 50 %: two equal sources | 3.6 % | never |
| 55 % | 93.6 % | 749 |
| 60 % | 100 % | 181 |
| 65 % | 100 % | 87 |
| 75 % | 100 % | 38 |
"""

import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

ALPHA = 0.05
# Of the Beta(a, a) mixture. It decides only about power: with 10 most of its mass lies between 30 % and 70 %, and
# shares of 55 % to 65 % are found with nearly the fewest votes.
CONCENTRATION = 10.0


class Decision(StrEnum):
    OPEN = "open"  # the votes do not decide yet
    BETTER = "better"  # the candidate wins more than half of the decisive votes
    WORSE = "worse"  # it wins fewer than half
    FUTILE = "futile"  # it wins fewer than the share that is worth a promotion


@dataclass(frozen=True)
class Evidence:
    """Result of a trial so far. Shares are of the decisive votes."""

    wins: int
    losses: int
    ties: int
    low: float  # ends of the confidence sequence of the candidate's win share, now
    high: float
    decision: Decision
    decided_after: int | None  # decisive votes at the decision; later votes do not change it

    @property
    def decisive(self) -> int:
        return self.wins + self.losses

    @property
    def win_share(self) -> float | None:
        """Share of the decisive votes that the candidate won; None without one."""
        return self.wins / self.decisive if self.decisive else None

    @property
    def win_rate(self) -> float | None:
        """Share of all tested votes that the candidate won, where a tie counts half; None without a vote."""
        votes = self.decisive + self.ties
        return (self.wins + self.ties / 2) / votes if votes else None


def independent_votes(votes: Iterable[tuple[Hashable, int]]) -> list[int]:
    """Return the votes that may be tested together: of each comparison the first decisive one, or a tie if all are.

    `votes` are (comparison, vote) in the order of time: 1 for the candidate, −1 against it, 0 for a tie. The result is
    in the order in which the votes came.
    """
    first: dict[Hashable, tuple[int, int]] = {}
    for time, (comparison, vote) in enumerate(votes):
        if first.get(comparison, (time, 0))[1] == 0:
            first[comparison] = (time, vote)
    return [vote for _time, vote in sorted(first.values())]


def evidence(votes: Sequence[int], *, alpha: float = ALPHA, worthwhile_share: float = 0.5) -> Evidence:
    """Return what independent votes show, in the order of time: 1 for the candidate, −1 against it, 0 for a tie.

    The decision is the first that any number of these votes gave. With `worthwhile_share` above one half a trial is
    futile as soon as the whole interval lies below that share. Raises ValueError for a vote or share outside its range.
    """
    if not 0.5 <= worthwhile_share < 1:
        raise ValueError("worthwhile_share must be at least 0.5 and less than 1.")
    if not 0 < alpha < 1:
        raise ValueError("alpha must lie between 0 and 1.")
    if set(votes) - {-1, 0, 1}:
        raise ValueError("A vote is 1, 0 or -1.")
    wins = losses = 0
    decision, decided_after = Decision.OPEN, None
    for vote in votes:
        wins, losses = wins + (vote == 1), losses + (vote == -1)
        if vote and decision is Decision.OPEN:
            decision = _decision(wins, losses, alpha, worthwhile_share)
            decided_after = wins + losses if decision is not Decision.OPEN else None
    low, high = confidence_sequence(wins, losses, alpha)
    return Evidence(wins, losses, len(votes) - wins - losses, low, high, decision, decided_after)


def _decision(wins: int, losses: int, alpha: float, worthwhile_share: float) -> Decision:
    threshold = -math.log(alpha)
    share = wins / (wins + losses)
    if log_mixture_ratio(wins, losses, 0.5) >= threshold:
        return Decision.BETTER if share > 0.5 else Decision.WORSE
    if share < worthwhile_share and log_mixture_ratio(wins, losses, worthwhile_share) >= threshold:
        return Decision.FUTILE
    return Decision.OPEN


def confidence_sequence(wins: int, losses: int, alpha: float = ALPHA) -> tuple[float, float]:
    """Return the ends of the always-valid interval of the win share, with error probability `alpha`."""
    threshold = -math.log(alpha)

    def is_inside(share: float) -> bool:
        return log_mixture_ratio(wins, losses, share) < threshold

    # The ratio is smallest at the observed share and grows on both sides of it.
    middle = wins / (wins + losses) if wins + losses else 0.5
    low = 0.0 if wins == 0 else _boundary(middle, 0.0, is_inside)
    high = 1.0 if losses == 0 else _boundary(middle, 1.0, is_inside)
    return low, high


def _boundary(inside: float, outside: float, is_inside: Callable[[float], bool]) -> float:
    """Return the first share on the way to `outside` that is not inside, by bisection down to neighbouring floats."""
    while (middle := (inside + outside) / 2) not in (inside, outside):
        if is_inside(middle):
            inside = middle
        else:
            outside = middle
    return outside


def log_mixture_ratio(wins: int, losses: int, share: float) -> float:
    """Return log M(share): how much better the mixture explains the votes than this share, 0 < share < 1."""
    a = CONCENTRATION
    mixture = _log_beta(a + wins, a + losses) - _log_beta(a, a)
    return mixture - wins * math.log(share) - losses * math.log1p(-share)


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
