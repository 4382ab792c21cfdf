"""What fits in memory: a pass that runs out of it is tried again with smaller micro-batches, for good.

A gradient is a sum over micro-batches of any size, and what a model says of a row does not depend on the others, so
the results are the same; only the time is not.
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
    """How much goes through a model at once: as set, until memory runs out, then half as much each time.

    `unit` says what is counted, for the log: tokens, or rows that each have the length 1.
    """

    def __init__(self, size: int, unit: str = "tokens") -> None:
        self.size = size
        self.unit = unit
        self.halvings = 0

    def attempt(
        self, lengths: Sequence[int], work: Callable[[int], Result], undo: Callable[[], object] = lambda: None
    ) -> Result:
        """What `work` gives for rows of these lengths, at a size that fits in memory.

        `work` gets the size, and goes over all rows from the start every time; `undo` clears what a failed attempt
        left behind (half a gradient). Raises TrainingFailed with a sentence when single rows do not fit.
        """
        while True:
            try:
                return work(self.size)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                sentence = " ".join(str(error).split())[:200]
            undo()  # outside of the handler: the error holds the frames, and they the tensors, of what did not fit
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
    """Whether an allocator failed, the GPU's or the host's."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or should_reduce_batch_size(error)
