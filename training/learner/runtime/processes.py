"""Several processes on one job: who am I, and sums over all. One process needs nothing of this and pays nothing.

Started by `accelerate launch` or `torchrun`, which put the rank and the meeting point in the environment. Every one
holds the whole model and works on its share of each batch; losses are divided by counts over *all* processes and the
gradients are summed, so that the result is that of one process on the whole batch. All processes take part in the same
number of sums at every step, whatever their share holds, so none waits for another for ever.
"""

import os
from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


class Processes:
    """The processes of this job."""

    def __init__(self) -> None:
        self.rank = int(os.environ.get("RANK", "0"))
        self.count = int(os.environ.get("WORLD_SIZE", "1"))
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        if self.count > 1 and not dist.is_initialized():
            dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def sum(self, value: Tensor) -> Tensor:
        """The sum over all processes, on each of them."""
        if self.count == 1:
            return value
        total = value.detach().clone()
        dist.all_reduce(total)
        return total

    def sum_of(self, number: float) -> float:
        """The sum over all processes of one number."""
        if self.count == 1:
            return number
        where = "cuda" if torch.cuda.is_available() else "cpu"
        return float(self.sum(torch.tensor(number, dtype=torch.float64, device=where)))

    def any(self, flag: bool) -> bool:
        """Whether the flag is true anywhere."""
        return self.sum_of(float(flag)) > 0

    def gather(self, items: list[Any]) -> list[Any]:
        """Everyone's items, those of `share` back in their order: item i of the whole came from process i % count."""
        if self.count == 1:
            return items
        parts: list[list[Any]] = [[] for _ in range(self.count)]
        dist.all_gather_object(parts, items)
        return [parts[i % self.count][i // self.count] for i in range(sum(map(len, parts)))]

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Sums every gradient over all processes, in one message; a missing gradient counts as zeros."""
        if self.count == 1:
            return
        learning = [p for p in parameters if p.requires_grad]
        for p in learning:
            p.grad = torch.zeros_like(p) if p.grad is None else p.grad
        together = torch.cat([p.grad.flatten() for p in learning])  # type: ignore[union-attr]
        dist.all_reduce(together)
        for p, part in zip(learning, together.split([p.numel() for p in learning]), strict=True):
            p.grad.copy_(part.view_as(p))  # type: ignore[union-attr]

    def wait(self) -> None:
        """Until every process is here: after one of them changed files that all will read."""
        self.any(False)

    def close(self) -> None:
        if self.count > 1 and dist.is_initialized():
            dist.destroy_process_group()
