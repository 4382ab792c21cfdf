"""Peak of the machine, and the minimum that the benchmarks' work needs of it.

Training is counted in floating-point operations, as for model FLOPs utilisation (MFU; Chowdhery et al. 2022, "PaLM",
appendix B): 2 per weight and token forward, 4 backward, without the products of attention, which are few at these
lengths. Only what the task needs is counted (no padding, a ranking's prompt once), whatever a side really computes.
Decoding is counted in bytes: all weights in each step, and the KV cache of the tokens so far. The peak is measured.

    python -m tests.benchmarks.learner.machine
"""

import json
import os
import time
from collections.abc import Callable
from typing import NamedTuple

from tests.benchmarks.learner import world

ROUNDS = 10  # the fastest one is the peak


class Need(NamedTuple):
    """Operations or bytes that one unit of a benchmark's figure needs; the other one is 0."""

    operations: float = 0.0
    bytes: float = 0.0

    def share(self, rate: float, peak: dict[str, float]) -> float:
        """Return the share of the machine's peak at this many units per second."""
        return rate * (self.operations / peak["operations"] + self.bytes / peak["bytes"])


def trunk_weights(size: str) -> int:
    """Return the number of weights that each token is multiplied by, without embeddings, which are only looked up."""
    shape = world.SIZES[size]
    head = shape.hidden // shape.heads
    attention = 2 * shape.hidden * head * (shape.heads + shape.key_heads)
    return shape.layers * (attention + 3 * shape.hidden * shape.intermediate)


def policy_weights(size: str) -> int:
    """Return the same with the weights of the output layer."""
    return trunk_weights(size) + world.SIZES[size].hidden * world.SIZES[size].vocabulary


def item_bytes() -> int:
    return {"float32": 4, "bfloat16": 2}[world.dtype()]


def cache_bytes(size: str) -> int:
    """Return the bytes of a token in the KV cache."""
    shape = world.SIZES[size]
    return 2 * shape.layers * shape.key_heads * (shape.hidden // shape.heads) * item_bytes()


def peak() -> dict[str, float]:
    """Measure operations per second (product of two large matrices) and bytes per second (matrix times vector)."""
    import torch

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    is_gpu = torch.cuda.is_available()
    device, width = ("cuda", 8192) if is_gpu else ("cpu", 2048)
    dtype = getattr(torch, world.dtype())
    matrix, tall = torch.ones(width, width, dtype=dtype, device=device), torch.ones(2**14, 2**12, device=device)
    vector = torch.ones(2**12, device=device)

    def seconds(work: Callable[[], object]) -> float:
        taken = []
        for _ in range(ROUNDS):
            started = time.perf_counter()
            work()
            if is_gpu:
                torch.cuda.synchronize()
            taken.append(time.perf_counter() - started)
        return min(taken)

    return {
        "operations": 2 * width**3 / seconds(lambda: matrix @ matrix),
        "bytes": 4 * tall.numel() / seconds(lambda: tall @ vector),
    }


if __name__ == "__main__":
    print(json.dumps(peak()))
