"""Fused decoder on a GPU: all operations of a decoding step run as one CUDA graph.

A step of one token per row is about twenty small kernels per layer, and the GPU finishes each before the CPU launches
the next. A CUDA graph replays recorded kernels at fixed addresses and shapes. So a step reads its tokens and its column
from static tensors, writes keys and values by index, and attends to all columns up to a fixed width with a mask. When
rows are dropped or the width is exceeded, a new graph is recorded, which costs three steps; therefore rows are dropped
only when many have finished.
"""

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from training.learner.models.forward_decoder import Prompts
from training.learner.sampling.fused_decoder import FusedDecoder, Layer, Weights

WIDTH = 256  # columns: attention widths are multiples of this

Step = Callable[[], Tensor]


class GraphDecoder(FusedDecoder):
    """Fused decoder that replays CUDA graphs. The logits of `read` are overwritten by the next `read`."""

    compact_below = (
        0.25  # a step with fewer rows is hardly faster (weights dominate), and each change costs a new graph
    )

    def __init__(
        self, weights: Weights, prompts: Prompts, new_tokens: int, capture: Callable[[Step], Step] | None = None
    ) -> None:
        """Prepare the batch. `capture` turns a repeatable step into one launch (default: `captured`)."""
        super().__init__(weights, prompts, new_tokens)
        self._capture = capture or captured
        self._starts = self._column - self._lengths  # [B], the column of each row's first token
        self._columns = torch.arange(self._capacity, device=self._lengths.device)
        self._tokens = torch.zeros_like(self._lengths)
        self._column_tensor = torch.zeros(
            1, dtype=torch.long, device=self._lengths.device
        )  # self._column as a static tensor
        self._width = 0
        self._masks: dict[int | None, Tensor] = {}  # by the layer's window

    def _mask_of(self, lengths: Tensor) -> None:
        """Return nothing: the mask is computed in every step."""

    def _allocate_cache(self, states: Tensor) -> Tensor:
        cache = super()._allocate_cache(states)
        cache[:, :, :, self._column :] = 0  # masked values are still multiplied by 0: they must be finite
        return cache

    def keep(self, rows: Tensor) -> None:
        super().keep(rows)
        self._starts, self._tokens = self._starts[rows], self._tokens[rows]
        self._width = 0  # forces a new graph: a graph has a fixed number of rows

    def _read(self, tokens: Tensor) -> Tensor:
        self._tokens.copy_(tokens)
        self._column_tensor.fill_(self._column)
        if self._column >= self._width:
            self._width = min(self._capacity, (self._column // WIDTH + 1) * WIDTH)
            self._launch = self._capture(self._step_at_column)
        self._column += 1
        return self._launch()

    def _step_at_column(self) -> Tensor:
        """Run one step on static tensors only, so that it can be recorded and replayed."""
        self._masks = {layer.window: self._mask_at_column(layer.window) for layer in self._weights.layers}
        return self._step(
            self._tokens, self._rotations_of_steps.index_select(0, self._column_tensor - self._longest)[0]
        )

    def _mask_at_column(self, window: int | None) -> Tensor:
        """Return the mask [B * key heads, 1, width]: −inf before the prompt, after this token, outside the window."""
        columns, rows = self._columns[: self._width], len(self._starts)
        hidden = (columns < self._starts[:, None]) | (columns > self._column_tensor)
        if window is not None:
            hidden |= columns <= self._column_tensor - window
        mask = torch.zeros(hidden.shape, dtype=self._weights.dtype, device=hidden.device)
        mask.masked_fill_(hidden, float("-inf"))
        return mask[:, None, None].expand(rows, self._weights.key_heads, 1, self._width).flatten(0, 1)

    def _write(self, cache: Tensor, fresh: Tensor) -> None:
        cache.index_copy_(3, self._column_tensor, fresh[:, :, :, None])

    def _attended_columns(self, layer: Layer) -> tuple[slice, Tensor]:
        return slice(0, self._width), self._masks[layer.window]


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
