"""Scalar heads: from a reward model's to a critic's."""

from typing import Any

import torch
from torch import nn


@torch.no_grad()
def value_head(score: nn.Linear, config: Any) -> nn.Linear:
    """Return a head with a bias whose values are the normalised scores of a reward model's head.

    config: the reward model's, with the shift and scale of its scores.
    """
    scale, shift = getattr(config, "reward_scale", 1.0), getattr(config, "reward_shift", 0.0)
    head = nn.Linear(score.in_features, 1).to(score.weight)
    head.weight.copy_(score.weight / scale)
    nn.init.constant_(head.bias, ((0.0 if score.bias is None else float(score.bias)) - shift) / scale)
    return head
