"""Several trainings from one start, in orders of their own, and the mean of the weights they end with.

Ramé et al. 2024, «WARM: On the Benefits of Weight Averaged Reward Models»: fine-tunings of one pretrained model lie in
one basin, so the mean of their weights is a model too; what each learned by chance, from noisy judgements above all, is
averaged away, and it costs nothing once trained.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


class WeightAverage:
    """The mean of what a module's learning parameters were at the end of each run."""

    def __init__(self, module: nn.Module, runs: int) -> None:
        self.module = module
        self.runs = runs
        self.count = 0
        self.start = self._copied() if runs > 1 else {}
        self.mean: dict[str, Tensor] = {}

    def _learning(self) -> dict[str, nn.Parameter]:
        return {name: p for name, p in self.module.named_parameters() if p.requires_grad}

    def _copied(self) -> dict[str, Tensor]:
        return {name: p.detach().clone() for name, p in self._learning().items()}

    @torch.no_grad()
    def end_run(self, optimizer: Optimizer) -> None:
        """Adds the weights to the mean; back to the start with them, or to the mean after the last run."""
        self.count += 1
        if self.runs == 1:
            return
        for name, p in self._learning().items():
            mean = self.mean.setdefault(name, torch.zeros_like(p))
            mean.add_((p - mean) / self.count)
            p.copy_(mean if self.count == self.runs else self.start[name])
        optimizer.state.clear()

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count, "mean": self.mean}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.count = int(state["count"])
        parameters = self._learning()
        self.mean = {name: tensor.to(parameters[name]) for name, tensor in state["mean"].items()}
