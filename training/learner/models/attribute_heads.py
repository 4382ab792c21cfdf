"""Attribute heads: one linear head for every attribute that people rated, on the reward model's trunk.

A head predicts a rating at the last token, as the score is read there (Wang et al. 2024, "HelpSteer2: Open-source
dataset for training top-performing reward models", §3.1: a linear layer with one output per attribute). Inside, ratings
are standardised: 0 is an attribute's mean in training, 1 its deviation. A head starts at zero, which predicts the mean.

attributes.safetensors in the folder of the reward model holds the heads; a folder without it has none.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from training.learner.runtime.jobdir import BadInput

ATTRIBUTES_FILE = "attributes.safetensors"


class AttributeHeads(nn.Module):
    """Linear heads of A attributes, for features of width d."""

    shift: Tensor
    scale: Tensor

    def __init__(self, names: Sequence[str], width: int) -> None:
        super().__init__()
        self.names = tuple(names)
        self.weight = nn.Parameter(torch.zeros(len(names), width))
        self.bias = nn.Parameter(torch.zeros(len(names)))
        self.register_buffer("shift", torch.zeros(len(names)))  # of predictions of the reference samples: mean
        self.register_buffer("scale", torch.ones(len(names)))  # and deviation

    def forward(self, features: Tensor) -> Tensor:
        """Return predicted standardised ratings [N, A] for features [N, d]; float32, as scores are."""
        with torch.autocast(features.device.type, enabled=False):
            return F.linear(features.float(), self.weight, self.bias)

    def normalised(self, predictions: Tensor) -> Tensor:
        """Shift and scale predictions [N, A], so that the reference samples have mean 0 and deviation 1, as scores."""
        return (predictions - self.shift) / self.scale

    def set_normalisation(self, predictions: Tensor) -> None:
        """Set shift and scale by the predictions [N, A] of the reference samples; equal ones have the scale 1."""
        deviation = predictions.double().std(0, correction=0)
        self.shift.copy_(predictions.double().mean(0))
        self.scale.copy_(torch.where(deviation > 0, deviation, torch.ones_like(deviation)))

    def index(self, name: str) -> int:
        """Return the index of an attribute. Raises BadInput for an unknown one, with those there are."""
        if name not in self.names:
            raise BadInput(f"the reward model has no attribute {name!r}; it has {', '.join(self.names)}")
        return self.names.index(name)

    def save(self, folder: Path) -> None:
        tensors = {name: part.detach().contiguous().cpu() for name, part in self.state_dict().items()}
        save_file(tensors, folder / ATTRIBUTES_FILE, metadata={"format": "pt", "names": json.dumps(self.names)})

    @classmethod
    def load(cls, folder: Path) -> Self | None:
        """Return the heads in a reward model's folder; None if it has none."""
        file = folder / ATTRIBUTES_FILE
        if not file.is_file():
            return None
        with safe_open(file, "pt") as stored:
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 (no mapping)
            heads = cls(json.loads(stored.metadata()["names"]), tensors["weight"].shape[1])
        heads.load_state_dict(tensors)
        return heads
