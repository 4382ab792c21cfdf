"""REINFORCE++: rewards standardised over the whole batch."""

from typing import TYPE_CHECKING

from training.learner.estimators import estimator

if TYPE_CHECKING:
    from torch import Tensor


@estimator("reinforce_plus_plus", "reward standardised over the batch")
def batch_relative(rewards: "Tensor", group_size: int, baseline: float) -> "Tensor":
    """Return (r_i − mean) / (standard deviation + 1e-8) over the whole batch, [N]; 0 for a single completion.

    Hu et al. 2025, "REINFORCE++", equation 3; the KL penalty per token is part of r, summed over a completion.
    """
    centred = rewards - rewards.mean()
    return centred / (rewards.std(correction=0) + 1e-8)
