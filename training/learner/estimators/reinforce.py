"""REINFORCE with a baseline."""

from typing import TYPE_CHECKING

from training.learner.estimators import estimator

if TYPE_CHECKING:
    from torch import Tensor


@estimator("reinforce", "reward minus a baseline, the batch's mean or a moving one", has_baseline=True)
def above_baseline(rewards: "Tensor", group_size: int, baseline: float) -> "Tensor":
    """Return r_i − baseline, [N]. Williams 1992, "Simple statistical gradient-following algorithms", §4."""
    return rewards - baseline
