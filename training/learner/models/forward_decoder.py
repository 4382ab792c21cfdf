"""How a policy reads one more token of every completion it is writing: through its own forward pass, whatever it is.

A decoder holds what has been read of a batch's rows. `fused_decoding` has a faster one for some kinds of model.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel

from training.learner.models.packed_attention import AttentionRules, FlatBatch, FlatLayout, flatten, scaled_attention
from training.learner.models.token_outputs import logits_at


class Decoder(Protocol):
    """Rows of tokens read by a policy; it gives the logits [B, V] after the last token of each."""

    compact_below: float  # the share of its rows still writing at which dropping the others is worth it

    def read_prompts(self) -> Tensor:
        """Reads the prompts it was made with."""

    def read(self, tokens: Tensor) -> Tensor:
        """Reads one more token [B] of each row."""

    def keep(self, rows: Tensor) -> None:
        """Drops all rows but these."""


class Prompts(NamedTuple):
    """A batch's prompts, each distinct one once."""

    flat: FlatBatch
    copies: Tensor  # [B], which of the distinct prompts each row begins with


def gather_prompts(prompts: Sequence[Sequence[int]], device: torch.device) -> Prompts:
    """The distinct prompts end to end."""
    places = {prompt: place for place, prompt in enumerate(dict.fromkeys(map(tuple, prompts)))}
    copies = torch.tensor([places[tuple(prompt)] for prompt in prompts], device=device)
    return Prompts(flatten(list(places), device), copies)


class Recorder:
    """A layout that keeps what passes through another one: keys and values, [1, key heads, T, d], and the rules."""

    def __init__(self, layout: FlatLayout) -> None:
        self._layout = layout
        self.layers: dict[int, tuple[Tensor, Tensor, AttentionRules]] = {}

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, rules: AttentionRules) -> Tensor:
        self.layers[layer] = key, value, rules
        return self._layout.attend(layer, query, key, value, rules)

    def at(self, places: Tensor) -> "Recorder":
        narrow = Recorder(self._layout.at(places))
        narrow.layers = self.layers
        return narrow


def read_flat(policy: PreTrainedModel, prompts: Prompts) -> tuple[Recorder, Tensor]:
    """One pass over the distinct prompts: every layer's keys and values, and the logits [B, V] after each row's."""
    flat = prompts.flat
    recorder = Recorder(flat.layout)  # type: ignore[arg-type]
    ends = flat.starts + flat.lengths - 1
    logits = logits_at(policy, flat._replace(layout=recorder), ends)
    return recorder, logits[prompts.copies]


class ForwardDecoder:
    """Reads tokens by the policy's own forward pass; it is the layout of these passes, too.

    A layer's keys are [B, room, key heads, d]: row b holds positions 0 … positions[b] from the left.
    """

    compact_below = 0.75

    def __init__(self, policy: PreTrainedModel, prompts: Prompts, new_tokens: int) -> None:
        self._policy, self._prompts = policy, prompts
        lengths = prompts.flat.lengths[prompts.copies]
        self._room = int(lengths.max()) + new_tokens
        self._keys: dict[int, Tensor] = {}
        self._values: dict[int, Tensor] = {}
        self._positions = lengths - 1  # [B], of the token read last

    def read_prompts(self) -> Tensor:
        recorder, logits = read_flat(self._policy, self._prompts)
        for layer, (keys, values, _) in recorder.layers.items():
            self._keys[layer], self._values[layer] = self._set_aside(keys), self._set_aside(values)
        return logits

    def _set_aside(self, states: Tensor) -> Tensor:
        """Room for each row's states, [B, room, key heads, d], with those of its prompt in place."""
        flat, copies = self._prompts.flat, self._prompts.copies
        columns = torch.arange(self._room, device=states.device)
        tokens = flat.starts[copies, None] + columns.minimum(flat.lengths[copies, None] - 1)
        return states[0].transpose(0, 1)[tokens]

    def read(self, tokens: Tensor) -> Tensor:
        self._begin_step()
        output = self._policy(
            input_ids=tokens[None], position_ids=self._positions[None], layout=self, use_cache=False, logits_to_keep=0
        )
        return output.logits[0]

    def _begin_step(self) -> None:
        """Makes place for one token a row."""
        self._positions = self._positions + 1
        self._width = int(self._positions.max()) + 1
        self._writes = torch.arange(len(self._positions), device=self._positions.device) * self._room + self._positions
        columns = torch.arange(self._width, device=self._positions.device)
        self._mask = (columns <= self._positions[:, None])[:, None, None]

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, rules: AttentionRules) -> Tensor:
        """[1, B, heads, d]. The query heads that share a key head go in as so many queries of one head."""
        keys, values = self._keys[layer], self._values[layer]
        keys.view(-1, *keys.shape[2:])[self._writes] = key[0].transpose(0, 1)
        values.view(-1, *values.shape[2:])[self._writes] = value[0].transpose(0, 1)
        heads, key_heads = query.shape[1], keys.shape[2]
        q = query[0].transpose(0, 1).unflatten(1, (key_heads, heads // key_heads))
        k, v = (states[:, : self._width].transpose(1, 2) for states in (keys, values))
        mask = self._mask if rules.window is None else self._mask & self._within(rules.window)
        return scaled_attention(q, k, v, mask, rules._replace(window=None)).flatten(1, 2)[None]

    def _within(self, window: int) -> Tensor:
        columns = torch.arange(self._width, device=self._positions.device)
        return (columns > (self._positions - window)[:, None])[:, None, None]

    def keep(self, rows: Tensor) -> None:
        self._positions = self._positions[rows]
        for states in (self._keys, self._values):
            for layer in states:
                states[layer] = states[layer][rows]
