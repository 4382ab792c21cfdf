"""GRPO: rewards standardised within the completions of a prompt."""

from typing import TYPE_CHECKING

from training.learner.estimators import estimator

if TYPE_CHECKING:
    from torch import Tensor


@estimator("grpo", "reward standardised among the prompt's completions", min_group_size=2)
def group_relative(rewards: "Tensor", group_size: int, baseline: float) -> "Tensor":
    """Return (r_i − mean) / (standard deviation + 1e-4) of the rewards of its prompt, [N].

    Shao et al. 2024, "DeepSeekMath", §4.1.2.
    """
    groups = rewards.view(-1, group_size)
    return ((groups - groups.mean(1, keepdim=True)) / (groups.std(1, keepdim=True) + 1e-4)).flatten()
