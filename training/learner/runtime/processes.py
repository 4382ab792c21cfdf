"""Data parallelism: rank of this process, and sums over all processes. With one process all of it is a no-op.

`accelerate launch` or `torchrun` starts the processes and sets rank and address in the environment. Every process holds
the whole model and works on its share of each batch. Losses are divided by counts over *all* processes and gradients
are summed, so the result is that of one process on the whole batch. All processes call the same number of collectives
at every step, even with an empty share; otherwise one would wait forever.
"""

import os
from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


class Processes:
    """Process group of this job."""

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
        """Return the sum of a tensor over all processes."""
        if self.count == 1:
            return value
        total = value.detach().clone()
        dist.all_reduce(total)
        return total

    def sum_of(self, number: float) -> float:
        """Return the sum of a number over all processes."""
        if self.count == 1:
            return number
        device = "cuda" if torch.cuda.is_available() else "cpu"
        return float(self.sum(torch.tensor(number, dtype=torch.float64, device=device)))

    def any(self, flag: bool) -> bool:
        """Return whether the flag is true in any process."""
        return self.sum_of(float(flag)) > 0

    def gather(self, items: list[Any]) -> list[Any]:
        """Return the items of all processes in their order before `share`: item i came from process i % count."""
        if self.count == 1:
            return items
        parts: list[list[Any]] = [[] for _ in range(self.count)]
        dist.all_gather_object(parts, items)
        return [parts[i % self.count][i // self.count] for i in range(sum(map(len, parts)))]

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Sum all gradients over all processes, in one message. A missing gradient counts as zeros."""
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
        """Wait for all processes. Call it after one of them changed files that the others read."""
        self.any(False)

    def close(self) -> None:
        if self.count > 1 and dist.is_initialized():
            dist.destroy_process_group()
