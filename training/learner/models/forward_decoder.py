"""Reference decoder: one token per row and step through the policy's own forward pass, with packed attention.

A decoder holds the KV cache of a batch's rows. `sampling.fused_decoder` is a faster one for some architectures.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel

from training.learner.models.logits import logits_at
from training.learner.models.packed_attention import AttentionRules, PackedLayout, scaled_attention
from training.learner.models.packing import PackedSequences, pack_sequences


class Decoder(Protocol):
    """Rows of tokens read by a policy. Reading returns the logits [B, V] after the last token of each row."""

    compact_below: float  # share of unfinished rows below which dropping the finished ones pays off

    def read_prompts(self) -> Tensor:
        """Read the prompts of the batch."""

    def read(self, tokens: Tensor) -> Tensor:
        """Read one more token [B] of each row."""

    def keep(self, rows: Tensor) -> None:
        """Drop all rows except these."""


class Prompts(NamedTuple):
    """Prompts of a batch, each distinct one packed once."""

    packed: PackedSequences
    copies: Tensor  # [B], index of each row's prompt among the distinct ones


def gather_prompts(prompts: Sequence[Sequence[int]], device: torch.device) -> Prompts:
    """Pack the distinct prompts end to end."""
    numbers = {prompt: number for number, prompt in enumerate(dict.fromkeys(map(tuple, prompts)))}
    copies = torch.tensor([numbers[tuple(prompt)] for prompt in prompts], device=device)
    return Prompts(pack_sequences(list(numbers), device), copies)


class RecordingLayout:
    """Layout that records the keys and values [1, key heads, T, d] and the rules of every layer of another layout."""

    def __init__(self, layout: PackedLayout) -> None:
        self._layout = layout
        self.layers: dict[int, tuple[Tensor, Tensor, AttentionRules]] = {}

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, rules: AttentionRules) -> Tensor:
        self.layers[layer] = key, value, rules
        return self._layout.attend(layer, query, key, value, rules)

    def at(self, indices: Tensor) -> "RecordingLayout":
        narrow = RecordingLayout(self._layout.at(indices))
        narrow.layers = self.layers
        return narrow


def prefill(policy: PreTrainedModel, prompts: Prompts) -> tuple[RecordingLayout, Tensor]:
    """Return every layer's keys and values of the distinct prompts, and the logits [B, V] after each row's prompt."""
    packed = prompts.packed
    recorder = RecordingLayout(packed.layout)  # type: ignore[arg-type]
    ends = packed.starts + packed.lengths - 1
    logits = logits_at(policy, packed._replace(layout=recorder), ends)
    return recorder, logits[prompts.copies]


class ForwardDecoder:
    """Decoder that uses the policy's own forward pass, and is the layout of these passes.

    A layer's keys and values are [B, capacity, key heads, d]; row b holds positions 0 … positions[b], left-aligned.
    """

    compact_below = 0.75

    def __init__(self, policy: PreTrainedModel, prompts: Prompts, new_tokens: int) -> None:
        self._policy, self._prompts = policy, prompts
        lengths = prompts.packed.lengths[prompts.copies]
        self._capacity = int(lengths.max()) + new_tokens
        self._keys: dict[int, Tensor] = {}
        self._values: dict[int, Tensor] = {}
        self._positions = lengths - 1  # [B], position of the last token read

    def read_prompts(self) -> Tensor:
        recorder, logits = prefill(self._policy, self._prompts)
        for layer, (keys, values, _) in recorder.layers.items():
            self._keys[layer], self._values[layer] = self._allocate_cache(keys), self._allocate_cache(values)
        return logits

    def _allocate_cache(self, states: Tensor) -> Tensor:
        """Return a cache [B, capacity, key heads, d] that begins with the states of each row's prompt."""
        packed, copies = self._prompts.packed, self._prompts.copies
        columns = torch.arange(self._capacity, device=states.device)
        tokens = packed.starts[copies, None] + columns.minimum(packed.lengths[copies, None] - 1)
        return states[0].transpose(0, 1)[tokens]

    def read(self, tokens: Tensor) -> Tensor:
        self._begin_step()
        output = self._policy(
            input_ids=tokens[None], position_ids=self._positions[None], layout=self, use_cache=False, logits_to_keep=0
        )
        return output.logits[0]

    def _begin_step(self) -> None:
        """Move every row to the next position."""
        self._positions = self._positions + 1
        self._width = int(self._positions.max()) + 1
        rows = torch.arange(len(self._positions), device=self._positions.device)
        self._writes = rows * self._capacity + self._positions
        columns = torch.arange(self._width, device=self._positions.device)
        self._mask = (columns <= self._positions[:, None])[:, None, None]

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, rules: AttentionRules) -> Tensor:
        """Return [1, B, heads, d]. Query heads that share a key head are treated as several queries of one head."""
        keys, values = self._keys[layer], self._values[layer]
        keys.view(-1, *keys.shape[2:])[self._writes] = key[0].transpose(0, 1)
        values.view(-1, *values.shape[2:])[self._writes] = value[0].transpose(0, 1)
        heads, key_heads = query.shape[1], keys.shape[2]
        q = query[0].transpose(0, 1).unflatten(1, (key_heads, heads // key_heads))
        k, v = (states[:, : self._width].transpose(1, 2) for states in (keys, values))
        mask = self._mask if rules.window is None else self._mask & self._window_mask(rules.window)
        return scaled_attention(q, k, v, mask, rules._replace(window=None)).flatten(1, 2)[None]

    def _window_mask(self, window: int) -> Tensor:
        columns = torch.arange(self._width, device=self._positions.device)
        return (columns > (self._positions - window)[:, None])[:, None, None]

    def keep(self, rows: Tensor) -> None:
        self._positions = self._positions[rows]
        for states in (self._keys, self._values):
            for layer in states:
                states[layer] = states[layer][rows]
