"""Start of a reward model's training between a policy and the last round's reward model.

Ash and Adams 2020, "On Warm-Starting Neural Network Training": a network that continues on more data generalises worse
than a new one, unless its weights are first shrunk towards an initialisation. Here they are shrunk towards the policy,
which is where a full training starts.
"""

import torch

from training.learner.models.loading import load_scalar_model
from training.learner.models.reward_model import RewardModel
from training.learner.runtime.jobdir import BadInput


@torch.no_grad()
def move_towards(model: RewardModel, path: str, kept_share: float) -> None:
    """Set the weights of a new reward model to policy + kept_share · (last − policy), the head and trunk alike.

    path: folder of the last reward model. A learned anchor is scaled as the scores are. The ensemble stays new.
    Raises BadInput if the folder cannot be loaded or has weights of other names or shapes.
    """
    last = load_scalar_model(path)
    mine, others = dict(model.network.named_parameters()), dict(last.named_parameters())
    shapes = [{name: value.shape for name, value in weights.items()} for weights in (mine, others)]
    if type(last) is not type(model.network) or shapes[0] != shapes[1]:
        raise BadInput(
            f"the last reward model in {path} does not have the architecture of the model that it would start from: "
            "leave last_reward_model out"
        )
    for name, value in mine.items():
        value.lerp_(others[name].to(value), kept_share)
    anchor = getattr(last.config, "reward_anchor", None)
    if anchor is not None:
        model.network.config.reward_anchor = kept_share * anchor
