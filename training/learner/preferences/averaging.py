"""Weight averaging: several trainings from one start, each in another order, and the mean of their final weights.

Ramé et al. 2024, "WARM: On the Benefits of Weight Averaged Reward Models": fine-tunings of one pretrained model stay in
one basin of the loss, so the mean of their weights is a good model too. It averages out what each one memorised from
noisy labels, and costs nothing at inference.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


class WeightAverage:
    """Running mean of a module's trainable weights at the end of each run."""

    def __init__(self, module: nn.Module, runs: int) -> None:
        self.module = module
        self.runs = runs
        self.count = 0
        self.start = self._copies() if runs > 1 else {}
        self.mean: dict[str, Tensor] = {}

    def _trainable(self) -> dict[str, nn.Parameter]:
        return {name: p for name, p in self.module.named_parameters() if p.requires_grad}

    def _copies(self) -> dict[str, Tensor]:
        return {name: p.detach().clone() for name, p in self._trainable().items()}

    @torch.no_grad()
    def end_run(self, optimizer: Optimizer) -> None:
        """Add the weights to the mean. Then reset them to the start, or after the last run set them to the mean.

        The optimizer's state is cleared. With a single run nothing changes.
        """
        self.count += 1
        if self.runs == 1:
            return
        for name, p in self._trainable().items():
            mean = self.mean.setdefault(name, torch.zeros_like(p))
            mean.add_((p - mean) / self.count)
            p.copy_(mean if self.count == self.runs else self.start[name])
        optimizer.state.clear()

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count, "mean": self.mean}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.count = int(state["count"])
        parameters = self._trainable()
        self.mean = {name: tensor.to(parameters[name]) for name, tensor in state["mean"].items()}
