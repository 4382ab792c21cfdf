"""What the machine can do at most, and what the benchmarks' work needs of it at least.

Training is counted in floating-point operations, as model FLOPs utilisation does (MFU; Chowdhery et al. 2022, «PaLM»,
appendix B): 2 a weight and token forward, 4 backward, without attention's products, which are few at these lengths; and
only what the task needs: no padding, a ranking's prompt once, whatever a side really computes. Decoding is counted in
bytes: every weight a step, and the keys and values of what has been written. The peak is measured, not looked up.

    python -m tests.benchmarks.learner.machine
"""

import json
import os
import time
from collections.abc import Callable
from typing import NamedTuple

from tests.benchmarks.learner import world

ROUNDS = 10  # the best of them is the peak


class Need(NamedTuple):
    """Of one unit of a benchmark's figure: of one of them, the other is 0."""

    operations: float = 0.0
    bytes: float = 0.0

    def share(self, rate: float, peak: dict[str, float]) -> float:
        """Of the machine's peak, at so many units a second."""
        return rate * (self.operations / peak["operations"] + self.bytes / peak["bytes"])


def trunk_weights(size: str) -> int:
    """That every token is multiplied by; embeddings are only looked up."""
    shape = world.SIZES[size]
    head = shape.hidden // shape.heads
    attention = 2 * shape.hidden * head * (shape.heads + shape.key_heads)
    return shape.layers * (attention + 3 * shape.hidden * shape.intermediate)


def policy_weights(size: str) -> int:
    """With the product that gives a token's logits."""
    return trunk_weights(size) + world.SIZES[size].hidden * world.SIZES[size].vocabulary


def item_bytes() -> int:
    return {"float32": 4, "bfloat16": 2}[world.dtype()]


def cache_bytes(size: str) -> int:
    """Of a token's keys and values."""
    shape = world.SIZES[size]
    return 2 * shape.layers * shape.key_heads * (shape.hidden // shape.heads) * item_bytes()


def peak() -> dict[str, float]:
    """Operations a second in a product of two large matrices, bytes a second in one of a matrix and a vector."""
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
