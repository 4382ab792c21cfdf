"""GSPO: GRPO's advantages, with one probability ratio for a whole completion."""

from typing import TYPE_CHECKING

from training.learner.estimators import estimator
from training.learner.estimators.grpo import group_relative

if TYPE_CHECKING:
    from torch import Tensor


@estimator("gspo", "as grpo, with one ratio per completion", min_group_size=2, is_ratio_of_sequence=True)
def group_relative_of_sequences(rewards: "Tensor", group_size: int, baseline: float) -> "Tensor":
    """Return the advantages of GRPO, [N].

    Zheng et al. 2025, "Group sequence policy optimization", equations 5 and 6; the ratio is equation 7, see
    `sequence_log_ratios` in policy/losses.py. Its clip ranges are much narrower: the paper uses 3e-4 and 4e-4.
    """
    return group_relative(rewards, group_size, baseline)
