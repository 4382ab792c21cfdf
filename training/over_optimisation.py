"""Over-optimisation: rounds in which the reward model's score rises and people's rating does not.

A policy that is trained against a reward model moves away from the imported model, its root. Beyond some distance the
score goes on rising while people like the completions less (Gao, Schulman and Hilton 2023, "Scaling laws for reward
model overoptimization"; Stiennon et al. 2020, "Learning to summarize from human feedback", figure 5). Both are shown
against that distance, the KL divergence in nats per completion.

**The rule.** A round is reported if the interval of its gain in reward lies above 0 and people's rating of its
checkpoint rises by less than MIN_RISE: the upper confidence bound of the difference between the checkpoint and the
round's reference is below MIN_RISE. If the bound is below 0, the rating falls. The bounds are one-sided, at the level
NOMINAL_LEVEL divided by the number of rounds with a gain in reward and both ratings (Bonferroni). Where people's rating
rises by MIN_RISE or more in every round, the probability that any round is reported is at most LEVEL, also with few
annotators, whose intervals are a little too short. `tests/training/test_over_optimisation.py` simulates it.

**The line of best of n.** The best of n completions of the root, by a judge that never errs, beats another completion
of the root in n/(n + 1) of the cases, and its KL divergence from the root is at most log n − (n − 1)/n (Stiennon et al.
2020, appendix G.3; Beirami et al. 2024, "Theoretical guarantees on the alignment of best-of-n policy", show that it is
an upper bound, reached where no completion repeats). Hardly any policy wins more at the same KL (Gui, Gârbacea and
Veitch 2024, "BoNBoN alignment"), and people, who err, see fewer wins: points below the line are normal.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from feedback.models import Project
from feedback.quality.ratings import Coefficient, Ratings
from training.guards import kl_from_root
from training.models import Checkpoint, Round

LEVEL = 0.05  # probability of any report where people's rating rises in every round, at most
NOMINAL_LEVEL = 0.025  # of the bounds; with 0.05, 6.7 % of projects with 12 annotators who have tastes had a report
MIN_RISE = math.log(0.55 / 0.45)  # log-odds: the better one wins 55 % of the preferences without ties


class Finding(StrEnum):
    """The comparison of a round's gain in reward with people's rating."""

    FALLS = "falls"  # the reward rises, people's rating falls
    FLAT = "flat"  # the reward rises, people's rating rises by less than MIN_RISE or falls
    RISES = "rises"  # both rise
    UNDECIDED = "undecided"  # the intervals allow more than one of these
    NO_GAIN = "no_gain"  # the reward is not measured by the reward model alone, or not shown to rise


@dataclass(frozen=True)
class RoundPoint:
    """A round's checkpoint: its distance from the root, reward, and people's rating."""

    number: int
    source_id: int
    name: str
    kl: Coefficient | None  # from the root, nats per completion
    gain: Coefficient | None  # in reward over the round's reference, by the round's reward model alone
    reward: Coefficient | None  # sum of the gains since the root
    rating: Coefficient | None  # people's rating minus the root's, log-odds
    rise: Coefficient | None  # people's rating minus that of the round's reference
    finding: Finding = Finding.NO_GAIN

    @property
    def win_rate(self) -> Coefficient | None:
        """Return the share of wins against the root, without ties, by the rating."""
        return win_share(self.rating)

    @property
    def best_of_n(self) -> float | None:
        """Return the win rate of the best of n from the root at the same KL divergence."""
        return None if self.kl is None or self.kl.value is None else best_of_n_win_rate(max(0.0, self.kl.value))


def points_of(project: Project, ratings: Ratings) -> list[RoundPoint]:
    """Return the finished rounds that made a checkpoint, by number, with findings by the rule."""
    checkpoints = {checkpoint.pk: checkpoint for checkpoint in project.checkpoints.select_related("source")}
    rounds = project.rounds.filter(status=Round.Status.FINISHED, checkpoint__isnull=False).order_by("number")
    points: list[RoundPoint] = []
    rewards: dict[int, Coefficient] = {}  # by checkpoint
    for round_ in rounds.select_related("project"):
        checkpoint = checkpoints[round_.checkpoint_id]
        root = _root_of(checkpoint, checkpoints)
        reference = root if _is_measured_from_root(round_) else checkpoints[round_.base_id]
        gain = _gain_of(round_)
        reward = _sum(gain, rewards.get(reference.pk) if reference.parent_id else Coefficient("reward", 0.0, 0.0, 0.0))
        if reward:
            rewards[checkpoint.pk] = reward
        points.append(
            RoundPoint(
                number=round_.number,
                source_id=checkpoint.source_id,
                name=checkpoint.source.name,
                kl=_kl_from_root(round_),
                gain=gain,
                reward=reward,
                rating=_difference(ratings, checkpoint.source_id, root.source_id),
                rise=_difference(ratings, checkpoint.source_id, reference.source_id),
            )
        )
    return with_findings(points, ratings.quantile, ratings.degrees)


def with_findings(points: Sequence[RoundPoint], quantile: float, degrees: int) -> list[RoundPoint]:
    """Return the points with their findings. quantile, degrees: of the ratings' intervals."""
    tested = [point for point in points if _is_tested(point)]
    if not tested:
        return list(points)
    from scipy.special import stdtrit  # takes a tenth of a second to import

    one_sided = float(stdtrit(degrees, 1 - NOMINAL_LEVEL / len(tested)))
    return [
        replace(point, finding=_finding(point.rise, one_sided / quantile)) if point in tested else point
        for point in points
    ]


def best_of_n(n: float) -> tuple[float, float]:
    """Return the KL divergence of the best of n, at most, and its win rate. n need not be an integer."""
    return math.log(n) - (n - 1) / n, n / (n + 1)


def best_of_n_win_rate(kl: float) -> float:
    """Return the win rate of the best of n at this KL divergence, by bisection for log n."""
    low, high = 0.0, kl + 2.0  # log n − 1 < KL
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if middle - 1 + math.exp(-middle) < kl else (low, middle)
    return 1 / (1 + math.exp(-low))


def win_share(difference: Coefficient | None) -> Coefficient | None:
    """Return a difference of ratings as a share of wins without ties."""
    if difference is None or difference.value is None:
        return None
    bounds = (difference.value, difference.low, difference.high)
    return Coefficient("win_rate", *(None if bound is None else 1 / (1 + math.exp(-bound)) for bound in bounds))


def _is_tested(point: RoundPoint) -> bool:
    has_gain = point.gain is not None and point.gain.low is not None and point.gain.low > 0
    return has_gain and point.rise is not None and point.rise.low is not None


def _finding(rise: Coefficient | None, factor: float) -> Finding:
    """Return the finding of a round whose reward rises. factor: of the one-sided bound's margin to the interval's."""
    if rise is None or rise.value is None or rise.low is None:
        return Finding.UNDECIDED
    bound = rise.value + factor * (rise.value - rise.low)
    if bound < 0:
        return Finding.FALLS
    if bound < MIN_RISE:
        return Finding.FLAT
    return Finding.RISES if rise.low > 0 else Finding.UNDECIDED


def _root_of(checkpoint: Checkpoint, checkpoints: Mapping[int, Checkpoint]) -> Checkpoint:
    while checkpoint.parent_id:
        checkpoint = checkpoints[checkpoint.parent_id]
    return checkpoint


def _is_measured_from_root(round_: Round) -> bool:
    return bool(round_.settings.get("round", {}).get("reference") == "root")


def _gain_of(round_: Round) -> Coefficient | None:
    return _figure(round_.results.get("policy", {}), "reward_gain") if round_.scored_by_reward_model_alone else None


def _kl_from_root(round_: Round) -> Coefficient | None:
    kl = kl_from_root(round_)
    return Coefficient(kl.name, kl.value, kl.low, kl.high) if kl else None


def _figure(results: Mapping[str, Any], name: str) -> Coefficient | None:
    """Return a figure of a program's result with its interval, which it may lack."""
    if results.get(name) is None:
        return None
    return Coefficient(name, results[name], results.get(f"{name}_low"), results.get(f"{name}_high"))


def _sum(gain: Coefficient | None, before: Coefficient | None) -> Coefficient | None:
    """Return the sum of two independent figures; None if one is missing."""
    if gain is None or before is None or gain.value is None or before.value is None:
        return None
    value = gain.value + before.value
    if gain.low is None or before.low is None:
        return Coefficient("reward", value)
    margin = math.hypot(gain.value - gain.low, before.value - before.low)
    return Coefficient("reward", value, value - margin, value + margin)


def _difference(ratings: Ratings, source_id: int, other_id: int) -> Coefficient | None:
    if source_id not in ratings.rated or other_id not in ratings.rated:
        return None
    return ratings.difference(source_id, other_id)
