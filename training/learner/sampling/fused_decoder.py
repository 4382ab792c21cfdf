"""Fused decoder for Llama and related architectures: a decoding step without transformers' forward pass.

It does less work per step than the generic decoder:

- One matrix product gives queries, keys and values; another gives gate and up.
- Norm weights and the attention scale are multiplied into those matrices.
- The two halves of each head that RoPE rotates together are neighbours, so a rotation is one complex product. Queries
  and keys are reordered alike, so their products do not change.
- Prompts are right-aligned in the KV cache, so a step writes all keys and values in one column.
- Results go into preallocated buffers.
- On a CPU, matrices are stored [in, out], not [out, in] as in nn.Linear: products of few rows are 1.3 to 1.6 times
  faster.

The matrices are copies of the current weights: gather them again after every update, at the cost of two or three steps
of eight rows. `sampler.sample` does so at each call.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import (
    GemmaForCausalLM,
    LlamaForCausalLM,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen2ForCausalLM,
    Qwen3ForCausalLM,
)

from training.learner.models.forward_decoder import Prompts
from training.learner.models.packed_attention import AttentionRules
from training.learner.models.partial_forward import window_of

KINDS = (LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM, GemmaForCausalLM)
MAX_COPIED_ELEMENTS = 2**25  # of a matrix: larger ones are not copied to [in, out]
FIXED_ROTATIONS = (
    "default",
    "linear",
    "llama3",
    "yarn",
)  # RoPE types whose angles do not depend on the length of the text


@dataclass(frozen=True)
class Layer:
    """Weights of one layer in the computing dtype, stored [in, out]. E: hidden size, I: intermediate size."""

    attention_inputs: Tensor  # [E, (heads + 2 key heads) * d]
    attention_bias: Tensor | None
    attention_output: Tensor  # [heads * d, E]
    head_norm: Tensor | None  # [heads + key heads, d], of Qwen3's queries and keys
    gate_and_up: Tensor  # [E, 2 * I]
    down: Tensor  # [I, E]
    window: int | None  # sliding window in tokens; None: full attention


@dataclass(frozen=True)
class Weights:
    """Weights of a policy, gathered for decoding."""

    policy: PreTrainedModel
    layers: tuple[Layer, ...]
    heads: int
    key_heads: int
    final_norm: Tensor  # [E], times √E
    vocabulary: Tensor  # [E, V]
    epsilon: float
    activation: Callable[[Tensor], Tensor]
    dtype: torch.dtype

    @property
    def multiplications(self) -> int:
        """Count the multiplications of one step of one row, in products with these matrices."""
        layers = ((e.attention_inputs, e.attention_output, e.gate_and_up, e.down) for e in self.layers)
        return self.vocabulary.numel() + sum(matrix.numel() for layer in layers for matrix in layer)


def gather_weights(policy: PreTrainedModel) -> Weights | None:
    """Return the current weights of the policy, or None if its architecture is not supported here."""
    if not is_supported(policy):
        return None
    config, dtype = policy.config, computing_dtype(policy)
    layers = tuple(gather_layer(layer, config, dtype) for layer in policy.model.layers)
    final = policy.model.norm
    return Weights(
        policy=policy,
        layers=layers,
        heads=config.num_attention_heads,
        key_heads=config.num_key_value_heads,
        final_norm=norm_weight(final).float() * config.hidden_size**0.5,
        vocabulary=input_by_output(policy.lm_head.weight, dtype),
        epsilon=float(final.eps if hasattr(final, "eps") else final.variance_epsilon),
        activation=policy.model.layers[0].mlp.act_fn,
        dtype=dtype,
    )


def is_supported(policy: PreTrainedModel) -> bool:
    """Return whether the policy has exactly the modules expected here: no adapters, extra biases or patched layers."""
    if type(policy) not in KINDS:
        return False
    rotary = policy.model.rotary_emb
    whole = 2 * len(rotary.inv_freq) == policy.model.layers[0].self_attn.head_dim
    matrices = [policy.lm_head, *(m for layer in policy.model.layers for m in matrices_of(layer))]
    free = [m for layer in policy.model.layers for m in (layer.self_attn.o_proj, *matrices_of(layer)[4:])]
    return (
        whole
        and rotary.rope_type in FIXED_ROTATIONS
        and all(type(m) is nn.Linear for m in matrices)
        and all(m.bias is None for m in [policy.lm_head, *free])
    )


def matrices_of(layer: Any) -> list[nn.Module]:
    attention, mlp = layer.self_attn, layer.mlp
    return [attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj,
            mlp.gate_proj, mlp.up_proj, mlp.down_proj]  # fmt: skip


def computing_dtype(policy: PreTrainedModel) -> torch.dtype:
    """Return the autocast dtype if autocast is on, else the dtype of the weights."""
    kind = policy.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else policy.dtype


def gather_layer(layer: Any, config: Any, dtype: torch.dtype) -> Layer:
    attention, mlp = layer.self_attn, layer.mlp
    inputs = [attention.q_proj, attention.k_proj, attention.v_proj]
    is_rotated, scale, d = [True, True, False], attention.scaling, attention.head_dim
    has_head_norm = hasattr(attention, "q_norm")
    scales = [1.0 if has_head_norm else scale, 1.0, 1.0]  # with a norm of the queries the scale goes into the norm
    arranged = [
        side_by_side(m.weight.float() * s, d) if rotated else m.weight.float()
        for m, rotated, s in zip(inputs, is_rotated, scales, strict=True)
    ]
    bias = None
    if inputs[0].bias is not None:
        biases = zip(inputs, is_rotated, scales, strict=True)
        bias = torch.cat(
            [side_by_side(m.bias.float() * s, d) if rotated else m.bias.float() for m, rotated, s in biases]
        )
    head_norm = None
    if has_head_norm:
        query, key = (side_by_side(norm.weight.float(), d) for norm in (attention.q_norm, attention.k_norm))
        rows = [(query * scale).expand(config.num_attention_heads, d), key.expand(config.num_key_value_heads, d)]
        head_norm = torch.cat(rows)
    gate_and_up = torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight]).float()
    root = config.hidden_size**0.5  # see FusedDecoder._normalize
    return Layer(
        input_by_output(torch.cat(arranged).mul_(norm_weight(layer.input_layernorm).float() * root), dtype),
        None if bias is None else bias.to(dtype),
        input_by_output(attention.o_proj.weight, dtype),
        head_norm,
        input_by_output(gate_and_up.mul_(norm_weight(layer.post_attention_layernorm).float() * root), dtype),
        input_by_output(mlp.down_proj.weight, dtype),
        window_of(attention),
    )


def input_by_output(matrix: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the transpose of a linear layer's matrix; a contiguous copy on a CPU unless the matrix is very large."""
    transposed = matrix.to(dtype).mT
    is_copied = matrix.device.type == "cpu" and matrix.numel() <= MAX_COPIED_ELEMENTS
    return transposed.contiguous() if is_copied else transposed


def side_by_side(rows: Tensor, d: int) -> Tensor:
    """Reorder the d rows of each head so that i and i + d/2, which RoPE rotates together, become neighbours."""
    return rows.unflatten(0, (-1, 2, d // 2)).transpose(1, 2).flatten(0, 2)


def norm_weight(norm: Any) -> Tensor:
    """Return the factor of a norm. Gemma stores it minus 1."""
    return norm.weight + 1 if type(norm).__name__.startswith("Gemma") else norm.weight


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


class FusedDecoder:
    """Decoder of one batch of rows. The KV cache of a layer is [2, B, key heads, capacity, d].

    The token of row b at position p is in column p + longest prompt − length of the prompt of b; columns before the
    prompt are masked. `cuda_graphs.GraphDecoder` writes and reads columns by static tensors instead.
    """

    compact_below = 0.75

    def __init__(self, weights: Weights, prompts: Prompts, new_tokens: int) -> None:
        self._weights, self._prompts = weights, prompts
        self._lengths = prompts.packed.lengths[prompts.copies]
        self._longest = self._column = int(self._lengths.max())  # column of the next token
        self._capacity = self._column + new_tokens
        self._cache: list[Tensor] = []
        positions = self._lengths + torch.arange(new_tokens, device=self._lengths.device)[:, None]
        self._rotations = rotations(weights.policy, self._capacity)
        self._rotations_of_steps = self._rotations[positions][:, :, None]  # [new tokens, B, 1, d / 2]
        self._mask = self._mask_of(self._lengths)
        width = weights.policy.config.hidden_size
        self._least = torch.tensor((width * weights.epsilon) ** 0.5, device=self._lengths.device)
        self._scratch = self._scratch_for(len(self._lengths))

    def _scratch_for(self, rows: int) -> Scratch:
        weights = self._weights
        return Scratch(rows, weights, 2 * self._rotations_of_steps.shape[3], weights.heads + weights.key_heads)

    def _mask_of(self, lengths: Tensor) -> Tensor | None:
        """Return the mask [B * key heads, 1, capacity]: −inf before each prompt; None if all have one length."""
        if bool((lengths == self._column).all()):
            return None
        columns = torch.arange(self._capacity, device=lengths.device)
        mask = torch.zeros(len(lengths), 1, self._capacity, dtype=self._weights.dtype, device=lengths.device)
        mask.masked_fill_((columns < (self._column - lengths)[:, None])[:, None], float("-inf"))
        return mask.repeat_interleave(self._weights.key_heads, 0)

    def read_prompts(self) -> Tensor:
        with torch.autocast(self._lengths.device.type, enabled=False):
            return self._read_prompts()[self._prompts.copies]

    def _read_prompts(self) -> Tensor:
        """Return the logits [N, V] after each distinct prompt. Only last tokens pass through the whole last layer."""
        packed, weights = self._prompts.packed, self._weights
        scratch, layout = self._scratch_for(packed.tokens.shape[1]), packed.layout
        ends = packed.starts + packed.lengths - 1
        rotation = self._rotations[packed.positions[0]][:, None]
        hidden = weights.policy.model.embed_tokens(packed.tokens[0])
        for number, layer in enumerate(weights.layers):
            self._project(layer, hidden, rotation, scratch)
            self._cache.append(self._allocate_cache(scratch.fresh))
            query, key, value = (part.transpose(0, 1)[None] for part in (scratch.query, *scratch.fresh))
            if layer is weights.layers[-1]:
                hidden, query, layout = hidden[ends], query[:, :, ends], layout.at(ends)
                scratch = self._scratch_for(len(ends))
            rules = AttentionRules(scaling=1.0, window=layer.window, softcap=None)
            attended = layout.attend(number, query, key, value, rules)
            self._finish(layer, hidden, attended[0].flatten(1), scratch)
        return self._logits(hidden, scratch)

    def _allocate_cache(self, states: Tensor) -> Tensor:
        """Return a KV cache filled from [2, T, key heads, d]. Masked columns hold finite values of any token."""
        packed, copies = self._prompts.packed, self._prompts.copies
        columns = torch.arange(self._column, device=states.device) - (self._column - self._lengths)[:, None]
        rows = states[:, packed.starts[copies, None] + columns.clamp(min=0)].transpose(2, 3)
        cache = rows.new_empty(*rows.shape[:3], self._capacity, rows.shape[4])
        cache[:, :, :, : self._column] = rows
        return cache

    def keep(self, rows: Tensor) -> None:
        self._rotations_of_steps = self._rotations_of_steps[:, rows]
        self._cache = [cache[:, rows] for cache in self._cache]
        if self._mask is not None:
            self._mask = self._mask.unflatten(0, (-1, self._weights.key_heads))[rows].flatten(0, 1)
        self._scratch = self._scratch_for(len(rows))

    def read(self, tokens: Tensor) -> Tensor:
        with torch.autocast(tokens.device.type, enabled=False):
            return self._read(tokens)

    def _read(self, tokens: Tensor) -> Tensor:
        logits = self._step(tokens, self._rotations_of_steps[self._column - self._longest])
        self._column += 1
        return logits

    def _step(self, tokens: Tensor, rotation: Tensor) -> Tensor:
        """Return the logits [B, V] after tokens [B] with rotations [B, 1, d / 2]."""
        scratch = self._scratch
        hidden = self._weights.policy.model.embed_tokens(tokens)
        for layer, cache in zip(self._weights.layers, self._cache, strict=True):
            self._project(layer, hidden, rotation, scratch)
            self._write(cache, scratch.fresh)
            self._finish(layer, hidden, self._attend(layer, cache, scratch), scratch)
        return self._logits(hidden, scratch)

    def _project(self, layer: Layer, hidden: Tensor, rotation: Tensor, scratch: Scratch) -> None:
        """Queries, keys and values of [B, E] by their positions' rotation [B, 1, d / 2]."""
        multiply(self._normalize(hidden, scratch), layer.attention_inputs, layer.attention_bias, scratch.states)
        rotate_(scratch.rotated, layer.head_norm, rotation, self._weights.epsilon)

    def _write(self, cache: Tensor, fresh: Tensor) -> None:
        """Puts this token's keys and values, [2, B, key heads, d], into a layer's cache."""
        cache.select(3, self._column).copy_(fresh)

    def _attend(self, layer: Layer, cache: Tensor, scratch: Scratch) -> Tensor:
        """[B, heads * d]"""
        columns, mask = self._attended_columns(layer)
        keys, values = cache[:, :, :, columns].flatten(1, 2)
        query = scratch.query.reshape(len(keys), -1, keys.shape[2])
        return attend_rows(query, keys, values, mask).view(len(scratch.query), -1)

    def _attended_columns(self, layer: Layer) -> tuple[slice, Tensor | None]:
        """The columns that this token attends to, and what is added to its scores there."""
        first = 0 if layer.window is None else max(0, self._column + 1 - layer.window)
        columns = slice(first, self._column + 1)
        return columns, None if self._mask is None else self._mask[:, :, columns]

    def _finish(self, layer: Layer, hidden: Tensor, attended: Tensor, scratch: Scratch) -> None:
        """Add the attention output and the MLP to hidden [B, E], in place."""
        add_product(hidden, attended, layer.attention_output)
        torch.mm(self._normalize(hidden, scratch), layer.gate_and_up, out=scratch.gate_and_up)
        add_product(hidden, self._weights.activation(scratch.gate).mul_(scratch.up), layer.down)

    def _logits(self, hidden: Tensor, scratch: Scratch) -> Tensor:
        last = self._normalize(hidden, scratch) * self._weights.final_norm
        return torch.mm(last.to(self._weights.dtype), self._weights.vocabulary)

    def _normalize(self, hidden: Tensor, scratch: Scratch) -> Tensor:
        """Return x / √(Σx² + E·ε): RMSNorm without √E and the weight, which are multiplied into the next matrix."""
        norm = scratch.norm
        torch.linalg.vector_norm(hidden, dim=-1, keepdim=True, dtype=torch.float32, out=norm)
        return torch.div(hidden, torch.hypot(norm, self._least, out=norm), out=scratch.normalized)


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
