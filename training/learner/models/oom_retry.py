"""Retry a pass that runs out of memory, with micro-batches of half the size from then on.

A gradient is a sum over micro-batches of any size, and the outputs for a row do not depend on the other rows. So the
results stay the same; only the time changes.
"""

import gc
import sys
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size

from training.learner.runtime.jobdir import TrainingFailed
from training.learner.text.messages import budget_batches

Result = TypeVar("Result")


class MicroBatches:
    """Size of micro-batches: as configured at first, then halved each time memory runs out.

    `unit` names what the size counts, for the log: tokens, or rows of length 1.
    """

    def __init__(self, size: int, unit: str = "tokens") -> None:
        self.size = size
        self.unit = unit
        self.halvings = 0

    def attempt(
        self, lengths: Sequence[int], work: Callable[[int], Result], undo: Callable[[], object] = lambda: None
    ) -> Result:
        """Call `work` with the current size until it fits in memory, and return its result.

        `work` processes all rows of these lengths from the start at every call. `undo` removes what a failed call left
        behind, such as part of a gradient. Raises TrainingFailed if single rows do not fit.
        """
        while True:
            try:
                return work(self.size)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                sentence = " ".join(str(error).split())[:200]
            # Outside of the handler: the error holds the frames and so the tensors that did not fit.
            undo()
            gc.collect()
            clear_device_cache()
            self._halve(lengths, sentence)

    def _halve(self, lengths: Sequence[int], sentence: str) -> None:
        if len(budget_batches(lengths, self.size)) == len(lengths):
            longest = max(lengths, default=0)
            raise TrainingFailed(f"memory ran out on a single row of up to {longest} {self.unit}: {sentence}")
        self.size = max(min(self.size, sum(lengths)) // 2, 1)
        self.halvings += 1
        print(f"memory ran out: {self.size} {self.unit} at once from here on", file=sys.stderr, flush=True)


def is_out_of_memory(error: Exception) -> bool:
    """Return whether an allocator of the GPU or the host failed."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or should_reduce_batch_size(error)
