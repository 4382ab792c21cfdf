"""The fast decoder on a GPU: a step's operations are launched together, as one CUDA graph.

A step of one token a row is some twenty small operations a layer, and a GPU ends each sooner than a processor launches
the next. A graph repeats what it recorded, at the same addresses with the same shapes: so a step here takes its tokens
and its place from memory that stays, writes its keys and values at an index, and looks at all columns up to a fixed
width, those not yet written masked. When rows leave or the width is passed, another graph is recorded, which takes the
step three times; hence few rows' leaving is not worth it.
"""

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from training.learner.models.forward_decoder import Prompts
from training.learner.sampling.fused_decoder import FusedDecoder, Layer, Weights

WIDTH = 256  # columns: a step looks at fewer than these too many

Step = Callable[[], Tensor]


class GraphDecoder(FusedDecoder):
    """What `read` gives is overwritten by the next `read`."""

    compact_below = 0.25  # fewer rows are read no faster, as the weights still are, and each change costs a graph

    def __init__(
        self, weights: Weights, prompts: Prompts, new_tokens: int, capture: Callable[[Step], Step] | None = None
    ) -> None:
        """capture: makes of a step, which may be taken any number of times, one that is launched at once."""
        super().__init__(weights, prompts, new_tokens)
        self._capture = capture or captured
        self._starts = self._column - self._lengths  # [B], the column of each row's first token
        self._columns = torch.arange(self._room, device=self._lengths.device)
        self._tokens = torch.zeros_like(self._lengths)
        self._place = torch.zeros(1, dtype=torch.long, device=self._lengths.device)  # self._column, for the graph
        self._width = 0
        self._masks: dict[int | None, Tensor] = {}  # by the layer's window

    def _mask_of(self, lengths: Tensor) -> None:
        """Made anew at every step."""

    def _set_aside(self, states: Tensor) -> Tensor:
        memory = super()._set_aside(states)
        memory[:, :, :, self._column :] = 0  # what is masked is multiplied by 0 all the same, and must be finite
        return memory

    def keep(self, rows: Tensor) -> None:
        super().keep(rows)
        self._starts, self._tokens = self._starts[rows], self._tokens[rows]
        self._width = 0  # a graph is of one number of rows

    def _read(self, tokens: Tensor) -> Tensor:
        self._tokens.copy_(tokens)
        self._place.fill_(self._column)
        if self._column >= self._width:
            self._width = min(self._room, (self._column // WIDTH + 1) * WIDTH)
            self._launch = self._capture(self._step_at_place)
        self._column += 1
        return self._launch()

    def _step_at_place(self) -> Tensor:
        """Takes nothing but tensors that stay, and leaves the same behind each time it is called."""
        self._masks = {layer.window: self._mask_at_place(layer.window) for layer in self._weights.layers}
        return self._step(self._tokens, self._turns.index_select(0, self._place - self._longest)[0])

    def _mask_at_place(self, window: int | None) -> Tensor:
        """[B * key heads, 1, width]: −inf before a row's prompt, after this token, and before its window."""
        columns, rows = self._columns[: self._width], len(self._starts)
        hidden = (columns < self._starts[:, None]) | (columns > self._place)
        if window is not None:
            hidden |= columns <= self._place - window
        mask = torch.zeros(hidden.shape, dtype=self._weights.dtype, device=hidden.device)
        mask.masked_fill_(hidden, float("-inf"))
        return mask[:, None, None].expand(rows, self._weights.key_heads, 1, self._width).flatten(0, 1)

    def _write(self, memory: Tensor, fresh: Tensor) -> None:
        memory.index_copy_(3, self._place, fresh[:, :, :, None])

    def _seen(self, layer: Layer) -> tuple[slice, Tensor]:
        return slice(0, self._width), self._masks[layer.window]


def captured(step: Step) -> Step:
    """`step` as a CUDA graph; as it is, with a warning, where none can be recorded or it gives something else.

    As in PyTorch's notes on CUDA semantics: the first calls, on a stream of their own, set aside the workspaces that
    none may set aside while a graph is recorded.
    """
    current, stream, graph = torch.cuda.current_stream(), torch.cuda.Stream(), torch.cuda.CUDAGraph()
    stream.wait_stream(current)
    try:
        with torch.cuda.stream(stream):  # left again even where recording fails in the middle
            for _ in range(2):
                expected = step()
            with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
                result = step()
        current.wait_stream(stream)
        graph.replay()
        if not torch.allclose(result, expected, rtol=1e-2, atol=1e-2, equal_nan=True):
            raise RuntimeError("its logits are not those of the step that it recorded")
    except RuntimeError as error:
        warnings.warn(f"sampling goes on without CUDA graphs, several times as slowly: {error}", stacklevel=2)
        return step

    def launch() -> Tensor:
        graph.replay()
        return result

    return launch
