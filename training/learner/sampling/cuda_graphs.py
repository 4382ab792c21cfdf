"""Fused decoder on a GPU: all operations of a decoding step run as one CUDA graph.

A step of one token per row is about twenty small kernels per layer, and the GPU finishes each before the CPU launches
the next. A CUDA graph replays recorded kernels at fixed addresses and shapes. So a step reads its tokens and its column
from static tensors, writes keys and values by index, and attends to all columns up to a fixed width with a mask. When
rows are dropped or the width is exceeded, a new graph is recorded, which costs three steps; therefore rows are dropped
only when many have finished.
"""

import warnings
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from training.learner.models.forward_decoder import Prompts
from training.learner.sampling.fused_decoder import FusedStep, without_autocast
from training.learner.sampling.fused_weights import Weights

WIDTH = 256  # columns: attention widths are multiples of this

Step = Callable[[], Tensor]


class StaticColumns(NamedTuple):
    """Column of the new tokens as a tensor, and a fixed number of columns with masks."""

    column: Tensor  # [1]
    width: int
    masks: dict[int | None, Tensor]  # [B * key heads, 1, width], by the layer's window

    def write(self, cache: Tensor, fresh: Tensor) -> None:
        cache.index_copy_(3, self.column, fresh[:, :, :, None])

    def attended(self, window: int | None) -> tuple[slice, Tensor | None]:
        return slice(0, self.width), self.masks[window]


class GraphDecoder:
    """Decoder that replays fused steps as CUDA graphs. The logits of `read` are overwritten by the next `read`."""

    # A step with fewer rows is hardly faster, because reading the weights dominates, and each change costs a new graph.
    compact_below = 0.25

    def __init__(
        self, weights: Weights, prompts: Prompts, new_tokens: int, capture: Callable[[Step], Step] | None = None
    ) -> None:
        """Prepare the batch. `capture` turns a repeatable step into one launch (default: `captured`)."""
        self._step = step = FusedStep(weights, prompts, new_tokens)
        self._capture = capture or captured
        self._column = step.longest  # of the next token
        self._starts = step.longest - step.lengths  # [B], the column of each row's first token
        self._columns = torch.arange(step.capacity, device=step.lengths.device)
        # Static tensors that a recorded step reads:
        self._tokens = torch.zeros_like(step.lengths)
        self._column_tensor = torch.zeros(1, dtype=torch.long, device=step.lengths.device)
        self._width = 0  # columns of the recorded step; 0 before the first one

    def read_prompts(self) -> Tensor:
        with without_autocast(self._step):
            logits = self._step.read_prompts()
        for cache in self._step.cache:
            # Steps attend to all columns up to the width. Masked values are multiplied by 0, so they must be finite.
            cache[:, :, :, self._step.longest :] = 0
        return logits

    def keep(self, rows: Tensor) -> None:
        self._step.keep(rows)
        self._starts, self._tokens = self._starts[rows], self._tokens[rows]
        self._width = 0  # forces a new graph: a graph has a fixed number of rows

    def read(self, tokens: Tensor) -> Tensor:
        with without_autocast(self._step):
            self._tokens.copy_(tokens)
            self._column_tensor.fill_(self._column)
            if self._column >= self._width:
                self._width = min(self._step.capacity, (self._column // WIDTH + 1) * WIDTH)
                self._launch = self._capture(self._static_step)
            self._column += 1
            return self._launch()

    def _static_step(self) -> Tensor:
        """Run one step on static tensors only, so that it can be recorded and replayed."""
        step = self._step
        windows = {layer.window for layer in step.weights.layers}
        columns = StaticColumns(self._column_tensor, self._width, {window: self._mask(window) for window in windows})
        rotation = step.rotations.index_select(0, self._column_tensor - step.longest)[0]
        return step.read(self._tokens, rotation, columns)

    def _mask(self, window: int | None) -> Tensor:
        """Return the mask [B * key heads, 1, width]: −inf before the prompt, after this token, outside the window."""
        columns, rows = self._columns[: self._width], len(self._starts)
        hidden = (columns < self._starts[:, None]) | (columns > self._column_tensor)
        if window is not None:
            hidden |= columns <= self._column_tensor - window
        mask = torch.zeros(hidden.shape, dtype=self._step.weights.dtype, device=hidden.device)
        mask.masked_fill_(hidden, float("-inf"))
        return mask[:, None, None].expand(rows, self._step.weights.key_heads, 1, self._width).flatten(0, 1)


def captured(step: Step) -> Step:
    """Record `step` as a CUDA graph; return `step` itself, with a warning, if recording fails or the logits differ.

    The first two calls run on a side stream, because workspaces cannot be allocated while a graph is recorded (PyTorch,
    "CUDA semantics").
    """
    current, stream, graph = torch.cuda.current_stream(), torch.cuda.Stream(), torch.cuda.CUDAGraph()
    stream.wait_stream(current)
    try:
        with torch.cuda.stream(stream):  # the stream is left even if recording fails
            for _ in range(2):
                expected = step()
            with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
                result = step()
        current.wait_stream(stream)
        graph.replay()
        if not torch.allclose(result, expected, rtol=1e-2, atol=1e-2, equal_nan=True):
            raise RuntimeError("the logits of the graph differ from those of the recorded step")
    except RuntimeError as error:
        warnings.warn(f"sampling continues without CUDA graphs, several times slower: {error}", stacklevel=2)
        return step

    def launch() -> Tensor:
        graph.replay()
        return result

    return launch
