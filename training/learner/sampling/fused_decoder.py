"""Fused decoder for Llama and related architectures: a decoding step without transformers' forward pass.

It is an optional accelerator: `forward_decoder.ForwardDecoder` is the reference, and `fused_weights.is_supported`
decides whether the fused step may replace it. It does less work per step:

- Fewer and larger matrix products, with norms and scales multiplied into the weights (`fused_weights`).
- Prompts are right-aligned in the KV cache, so a step writes all keys and values in one column.
- Results go into preallocated buffers.
"""

from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel

from training.learner.models.forward_decoder import Prompts
from training.learner.models.packed_attention import AttentionRules
from training.learner.sampling.fused_weights import Layer, Weights


class Scratch:
    """Preallocated buffers for the results of a step with B rows."""

    def __init__(self, rows: int, weights: Weights, head_width: int, rotated_heads: int) -> None:
        """Allocate buffers. The first `rotated_heads` heads of a token get rotary positions."""
        first = weights.layers[0]
        width, inner = first.down.shape[1], first.gate_and_up.shape[1]

        def buffer(*shape: int, dtype: torch.dtype = weights.dtype) -> Tensor:
            return torch.empty(rows, *shape, dtype=dtype, device=first.down.device)

        self.norm, self.normalized = buffer(1, dtype=torch.float32), buffer(width)
        self.states = buffer(first.attention_inputs.shape[1])
        heads = self.states.view(rows, -1, head_width)
        self.query, self.rotated = heads[:, : weights.heads], heads[:, :rotated_heads]
        self.fresh = heads[:, weights.heads :].unflatten(1, (2, -1)).transpose(0, 1)  # keys and values
        self.gate_and_up = buffer(inner)
        self.gate, self.up = self.gate_and_up.chunk(2, -1)


class Columns(Protocol):
    """Columns of the KV cache that a step writes and attends to."""

    def write(self, cache: Tensor, fresh: Tensor) -> None:
        """Write the keys and values of the new tokens, [2, B, key heads, d], into a layer's cache."""

    def attended(self, window: int | None) -> tuple[slice, Tensor | None]:
        """Return the columns to attend to with this sliding window, and a mask that is added to the scores there."""


class FusedStep:
    """Weights, KV cache and buffers of a batch of rows; computes prompts and decoding steps.

    The KV cache of a layer is [2, B, key heads, capacity, d]. The token of row b at position p is in column
    p + longest prompt − length of the prompt of b. The first columns of shorter prompts hold states of other tokens;
    decoders mask them.
    """

    def __init__(self, weights: Weights, prompts: Prompts, new_tokens: int) -> None:
        self.weights, self.prompts = weights, prompts
        self.lengths = prompts.packed.lengths[prompts.copies]  # [B]
        self.longest = int(self.lengths.max())
        self.capacity = self.longest + new_tokens
        self.cache: list[Tensor] = []
        positions = self.lengths + torch.arange(new_tokens, device=self.lengths.device)[:, None]
        self._rotations = rotations(weights.policy, self.capacity)
        self.rotations = self._rotations[positions][:, :, None]  # of each step, [new tokens, B, 1, d / 2]
        width = weights.policy.config.hidden_size
        self._least = torch.tensor((width * weights.epsilon) ** 0.5, device=self.lengths.device)
        self._scratch = self._scratch_for(len(self.lengths))

    def _scratch_for(self, rows: int) -> Scratch:
        weights = self.weights
        return Scratch(rows, weights, 2 * self.rotations.shape[3], weights.heads + weights.key_heads)

    def read_prompts(self) -> Tensor:
        """Fill the KV cache and return the logits [B, V] after each row's prompt.

        In the last layer only the last tokens of the prompts are computed.
        """
        packed, weights = self.prompts.packed, self.weights
        scratch, layout = self._scratch_for(packed.tokens.shape[1]), packed.layout
        ends = packed.starts + packed.lengths - 1
        rotation = self._rotations[packed.positions[0]][:, None]
        hidden = weights.policy.model.embed_tokens(packed.tokens[0])
        for number, layer in enumerate(weights.layers):
            self._project(layer, hidden, rotation, scratch)
            self.cache.append(self._allocate_cache(scratch.fresh))
            query, key, value = (part.transpose(0, 1)[None] for part in (scratch.query, *scratch.fresh))
            if layer is weights.layers[-1]:
                hidden, query, layout = hidden[ends], query[:, :, ends], layout.at(ends)
                scratch = self._scratch_for(len(ends))
            rules = AttentionRules(scaling=1.0, window=layer.window, softcap=None)
            attended = layout.attend(number, query, key, value, rules)
            self._finish(layer, hidden, attended[0].flatten(1), scratch)
        return self._logits(hidden, scratch)[self.prompts.copies]

    def _allocate_cache(self, states: Tensor) -> Tensor:
        """Return a KV cache filled from [2, T, key heads, d]. Masked columns hold finite values of any token."""
        packed, copies = self.prompts.packed, self.prompts.copies
        columns = torch.arange(self.longest, device=states.device) - (self.longest - self.lengths)[:, None]
        rows = states[:, packed.starts[copies, None] + columns.clamp(min=0)].transpose(2, 3)
        cache = rows.new_empty(*rows.shape[:3], self.capacity, rows.shape[4])
        cache[:, :, :, : self.longest] = rows
        return cache

    def keep(self, rows: Tensor) -> None:
        """Drop all rows except these."""
        self.rotations = self.rotations[:, rows]
        self.cache = [cache[:, rows] for cache in self.cache]
        self._scratch = self._scratch_for(len(rows))

    def read(self, tokens: Tensor, rotation: Tensor, columns: Columns) -> Tensor:
        """Return the logits [B, V] after tokens [B] with rotations [B, 1, d / 2]."""
        scratch = self._scratch
        hidden = self.weights.policy.model.embed_tokens(tokens)
        for layer, cache in zip(self.weights.layers, self.cache, strict=True):
            self._project(layer, hidden, rotation, scratch)
            columns.write(cache, scratch.fresh)
            attended = self._attend(cache, scratch, *columns.attended(layer.window))
            self._finish(layer, hidden, attended, scratch)
        return self._logits(hidden, scratch)

    def _project(self, layer: Layer, hidden: Tensor, rotation: Tensor, scratch: Scratch) -> None:
        """Compute queries, keys and values of hidden [B, E] with rotations [B, 1, d / 2], in scratch."""
        multiply(self._normalize(hidden, scratch), layer.attention_inputs, layer.attention_bias, scratch.states)
        rotate_(scratch.rotated, layer.head_norm, rotation, self.weights.epsilon)

    def _attend(self, cache: Tensor, scratch: Scratch, columns: slice, mask: Tensor | None) -> Tensor:
        """Return the attention output [B, heads * d]."""
        keys, values = cache[:, :, :, columns].flatten(1, 2)
        query = scratch.query.reshape(len(keys), -1, keys.shape[2])
        return attend_rows(query, keys, values, mask).view(len(scratch.query), -1)

    def _finish(self, layer: Layer, hidden: Tensor, attended: Tensor, scratch: Scratch) -> None:
        """Add the attention output and the MLP to hidden [B, E], in place."""
        add_product(hidden, attended, layer.attention_output)
        torch.mm(self._normalize(hidden, scratch), layer.gate_and_up, out=scratch.gate_and_up)
        add_product(hidden, self.weights.activation(scratch.gate).mul_(scratch.up), layer.down)

    def _logits(self, hidden: Tensor, scratch: Scratch) -> Tensor:
        last = self._normalize(hidden, scratch) * self.weights.final_norm
        return torch.mm(last.to(self.weights.dtype), self.weights.vocabulary)

    def _normalize(self, hidden: Tensor, scratch: Scratch) -> Tensor:
        """Return x / √(Σx² + E·ε): RMSNorm without √E and the weight, which are multiplied into the next matrix."""
        norm = scratch.norm
        torch.linalg.vector_norm(hidden, dim=-1, keepdim=True, dtype=torch.float32, out=norm)
        return torch.div(hidden, torch.hypot(norm, self._least, out=norm), out=scratch.normalized)


class NextColumn(NamedTuple):
    """The column of the new tokens, and all columns before it."""

    column: int
    mask: Tensor | None  # [B * key heads, 1, capacity], −inf before each prompt; None if all prompts have one length

    def write(self, cache: Tensor, fresh: Tensor) -> None:
        cache.select(3, self.column).copy_(fresh)

    def attended(self, window: int | None) -> tuple[slice, Tensor | None]:
        first = 0 if window is None else max(0, self.column + 1 - window)
        columns = slice(first, self.column + 1)
        return columns, None if self.mask is None else self.mask[:, :, columns]


class FusedDecoder:
    """Decoder of one batch of rows by fused steps."""

    compact_below = 0.75

    def __init__(self, weights: Weights, prompts: Prompts, new_tokens: int) -> None:
        self._step = FusedStep(weights, prompts, new_tokens)
        self._column = self._step.longest  # of the next token
        self._mask = padding_mask(self._step)

    def read_prompts(self) -> Tensor:
        with without_autocast(self._step):
            return self._step.read_prompts()

    def read(self, tokens: Tensor) -> Tensor:
        rotation = self._step.rotations[self._column - self._step.longest]
        with without_autocast(self._step):
            logits = self._step.read(tokens, rotation, NextColumn(self._column, self._mask))
        self._column += 1
        return logits

    def keep(self, rows: Tensor) -> None:
        self._step.keep(rows)
        if self._mask is not None:
            self._mask = self._mask.unflatten(0, (-1, self._step.weights.key_heads))[rows].flatten(0, 1)


def without_autocast(step: FusedStep) -> torch.autocast:
    """Return a context without autocast: the gathered weights already have the dtype of the computation."""
    return torch.autocast(step.lengths.device.type, enabled=False)


def padding_mask(step: FusedStep) -> Tensor | None:
    """Return the mask [B * key heads, 1, capacity], −inf before each prompt, or None if all have one length."""
    lengths = step.lengths
    if bool((lengths == step.longest).all()):
        return None
    columns = torch.arange(step.capacity, device=lengths.device)
    mask = torch.zeros(len(lengths), 1, step.capacity, dtype=step.weights.dtype, device=lengths.device)
    mask.masked_fill_((columns < (step.longest - lengths)[:, None])[:, None], float("-inf"))
    return mask.repeat_interleave(step.weights.key_heads, 0)


def rotations(policy: PreTrainedModel, capacity: int) -> Tensor:
    """Return the rotation of every position, [capacity, d / 2] complex64, computed by the model's own module."""
    positions = torch.arange(capacity, device=policy.device)[None]
    cosine, sine = policy.model.rotary_emb(torch.zeros(1, device=policy.device), positions)
    half = cosine.shape[2] // 2
    return torch.complex(cosine[0, :, :half].contiguous(), sine[0, :, :half].contiguous())


def rotate_(states: Tensor, norm: Tensor | None, rotation: Tensor, epsilon: float) -> None:
    """Apply rotary positions [B, 1, d / 2] in place to [B, heads, d] whose rotated halves are neighbours."""
    rotated = states.float()  # no copy if it is float32
    if norm is not None:
        rotated = F.rms_norm(rotated, rotated.shape[-1:], None, epsilon) * norm
    torch.view_as_complex(rotated.unflatten(2, (-1, 2))).mul_(rotation)
    if rotated is not states:
        states.copy_(rotated)


def attend_rows(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
    """Return softmax attention of queries [N, Q, d] over keys and values [N, W, d]; the mask is added to the scores."""
    scores = torch.bmm(query, keys.mT) if mask is None else torch.baddbmm(mask, query, keys.mT)
    return torch.bmm(scores.softmax(-1, dtype=torch.float32).to(values.dtype), values)


def multiply(states: Tensor, matrix: Tensor, bias: Tensor | None, out: Tensor) -> None:
    if bias is None:
        torch.mm(states, matrix, out=out)
    else:
        torch.addmm(bias, states, matrix, out=out)


def add_product(hidden: Tensor, states: Tensor, matrix: Tensor) -> None:
    """Add states · matrix to hidden in place, in the dtype of hidden."""
    if hidden.dtype == matrix.dtype:
        hidden.addmm_(states, matrix)
    else:
        hidden.add_(states @ matrix)
