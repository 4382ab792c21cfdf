"""Dr. GRPO: rewards minus the mean of their prompt, not divided by the deviation."""

from typing import TYPE_CHECKING

from training.learner.estimators import estimator

if TYPE_CHECKING:
    from torch import Tensor


@estimator("dr_grpo", "reward minus the mean of the prompt's completions", min_group_size=2)
def group_centred(rewards: "Tensor", group_size: int, baseline: float) -> "Tensor":
    """Return r_i − mean of the rewards of its prompt, [N].

    Liu et al. 2025, "Understanding R1-Zero-Like Training: A Critical Perspective", §3.2: the deviation in GRPO gives
    prompts that are too easy or too hard a higher weight. The other half of Dr. GRPO, no division by the length of
    each completion, holds for all algorithms here: the loss is a mean over the tokens of all completions.
    """
    groups = rewards.view(-1, group_size)
    return (groups - groups.mean(1, keepdim=True)).flatten()
