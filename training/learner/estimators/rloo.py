"""RLOO: REINFORCE with a leave-one-out baseline."""

from typing import TYPE_CHECKING

from training.learner.estimators import estimator

if TYPE_CHECKING:
    from torch import Tensor


@estimator("rloo", "reward minus the mean of the prompt's other completions", min_group_size=2)
def leave_one_out(rewards: "Tensor", group_size: int, baseline: float) -> "Tensor":
    """Return r_i − mean of the other rewards of its prompt, [N].

    Kool et al. 2019; Ahmadian et al. 2024, "Back to Basics", §3.3.
    """
    groups = rewards.view(-1, group_size)
    return (groups - (groups.sum(1, keepdim=True) - groups) / (group_size - 1)).flatten()
