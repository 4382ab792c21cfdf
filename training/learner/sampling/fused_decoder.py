"""A decoder without transformers' forward pass, for Llama and its relatives: a step is a few large operations.

Beside doing less in Python, a step does less: queries, keys and values come from one matrix product, gate and up from
one; norms' weights and attention's scale are multiplied into those matrices; the two halves that rotary positions turn
together lie side by side, so that turning them is one complex product; rows end at one column of the memory (their
prompts are aligned at their ends), so that a step writes its keys and values in one place; results go into memory set
aside once. Prompts are read by the same operations. Keys and queries are both reordered, which leaves their products
what they were. On a processor matrices lie input by output, not output by input as in nn.Linear: products of few rows
are then 1.3 to 1.6 times as fast.

The matrices are copies of the policy's weights as they are now: gather them again after every change, which costs
about as much as two or three steps of eight rows. `sampler.sample` does so at each call.
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
LARGEST_COPY = 2**25  # numbers in a matrix
FIXED_ROTATIONS = ("default", "linear", "llama3", "yarn")  # those whose angles do not depend on how long the text is


@dataclass(frozen=True)
class Layer:
    """One layer's weights, in the dtype of the computation, input by output. E: the residual stream's width."""

    attention_inputs: Tensor  # [E, (heads + 2 key heads) * d]
    attention_bias: Tensor | None
    attention_output: Tensor  # [heads * d, E]
    head_norm: Tensor | None  # [heads + key heads, d], of Qwen3's queries and keys
    gate_and_up: Tensor  # [E, 2 * I]
    down: Tensor  # [I, E]
    window: int | None  # how many tokens a query sees; None: all


@dataclass(frozen=True)
class Weights:
    """A policy's weights, gathered for decoding."""

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
        """Of a row's step, in products with these matrices."""
        layers = ((e.attention_inputs, e.attention_output, e.gate_and_up, e.down) for e in self.layers)
        return self.vocabulary.numel() + sum(matrix.numel() for layer in layers for matrix in layer)


def gather_weights(policy: PreTrainedModel) -> Weights | None:
    """The policy's weights as they are now; None if this module does not know its kind."""
    if not is_known(policy):
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


def is_known(policy: PreTrainedModel) -> bool:
    """Whether all there is in the policy is what this module expects: no adapters, no further biases, no patches."""
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
    """That of autocast where it is on, else that of the weights."""
    kind = policy.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else policy.dtype


def gather_layer(layer: Any, config: Any, dtype: torch.dtype) -> Layer:
    attention, mlp = layer.self_attn, layer.mlp
    inputs = [attention.q_proj, attention.k_proj, attention.v_proj]
    turned, scale, d = [True, True, False], attention.scaling, attention.head_dim
    has_head_norm = hasattr(attention, "q_norm")
    scales = [1.0 if has_head_norm else scale, 1.0, 1.0]  # a norm of the queries would undo it: there it is scaled
    arranged = [
        side_by_side(m.weight.float() * s, d) if turn else m.weight.float()
        for m, turn, s in zip(inputs, turned, scales, strict=True)
    ]
    bias = None
    if inputs[0].bias is not None:
        biases = zip(inputs, turned, scales, strict=True)
        bias = torch.cat([side_by_side(m.bias.float() * s, d) if turn else m.bias.float() for m, turn, s in biases])
    head_norm = None
    if has_head_norm:
        query, key = (side_by_side(norm.weight.float(), d) for norm in (attention.q_norm, attention.k_norm))
        rows = [(query * scale).expand(config.num_attention_heads, d), key.expand(config.num_key_value_heads, d)]
        head_norm = torch.cat(rows)
    gate_and_up = torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight]).float()
    root = config.hidden_size**0.5  # see FusedDecoder._normed
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
    """The transpose of a linear layer's matrix; copied, on a processor, unless so large that memory matters more."""
    turned = matrix.to(dtype).mT
    is_copied = matrix.device.type == "cpu" and matrix.numel() <= LARGEST_COPY
    return turned.contiguous() if is_copied else turned


def side_by_side(rows: Tensor, d: int) -> Tensor:
    """Reorders each head's d rows: i and i + d/2, which rotary positions turn together, become neighbours."""
    return rows.unflatten(0, (-1, 2, d // 2)).transpose(1, 2).flatten(0, 2)


def norm_weight(norm: Any) -> Tensor:
    """What a norm multiplies by: Gemma keeps its distance from 1."""
    return norm.weight + 1 if type(norm).__name__.startswith("Gemma") else norm.weight


class Scratch:
    """Where a step's results go, for B rows."""

    def __init__(self, rows: int, weights: Weights, head_width: int, turned: int) -> None:
        """turned: how many of a token's heads have positions, the first ones."""
        first = weights.layers[0]
        width, inner = first.down.shape[1], first.gate_and_up.shape[1]

        def room(*shape: int, dtype: torch.dtype = weights.dtype) -> Tensor:
            return torch.empty(rows, *shape, dtype=dtype, device=first.down.device)

        self.length, self.normed = room(1, dtype=torch.float32), room(width)
        self.states = room(first.attention_inputs.shape[1])
        heads = self.states.view(rows, -1, head_width)
        self.query, self.turned = heads[:, : weights.heads], heads[:, :turned]
        self.fresh = heads[:, weights.heads :].unflatten(1, (2, -1)).transpose(0, 1)  # keys and values
        self.gate_and_up = room(inner)
        self.gate, self.up = self.gate_and_up.chunk(2, -1)


class FusedDecoder:
    """The rows of one batch. A layer's memory is its keys and its values, [2, B, key heads, room, d].

    Row b's token at position p lies in column p + longest prompt − length of b's prompt; what is before is masked.
    On a GPU `graphs.GraphDecoder` writes and looks up columns in its own way.
    """

    compact_below = 0.75

    def __init__(self, weights: Weights, prompts: Prompts, new_tokens: int) -> None:
        self._weights, self._prompts = weights, prompts
        self._lengths = prompts.flat.lengths[prompts.copies]
        self._longest = self._column = int(self._lengths.max())  # column: where the next token goes
        self._room = self._column + new_tokens
        self._memory: list[Tensor] = []
        positions = self._lengths + torch.arange(new_tokens, device=self._lengths.device)[:, None]
        self._rotations = rotations(weights.policy, self._room)
        self._turns = self._rotations[positions][:, :, None]  # [new tokens, B, 1, d / 2]
        self._mask = self._mask_of(self._lengths)
        width = weights.policy.config.hidden_size
        self._least = torch.tensor((width * weights.epsilon) ** 0.5, device=self._lengths.device)
        self._scratch = self._scratch_for(len(self._lengths))

    def _scratch_for(self, rows: int) -> Scratch:
        weights = self._weights
        return Scratch(rows, weights, 2 * self._turns.shape[3], weights.heads + weights.key_heads)

    def _mask_of(self, lengths: Tensor) -> Tensor | None:
        """[B * key heads, 1, room]: −inf before each row's prompt; None if all are of one length."""
        if bool((lengths == self._column).all()):
            return None
        columns = torch.arange(self._room, device=lengths.device)
        mask = torch.zeros(len(lengths), 1, self._room, dtype=self._weights.dtype, device=lengths.device)
        mask.masked_fill_((columns < (self._column - lengths)[:, None])[:, None], float("-inf"))
        return mask.repeat_interleave(self._weights.key_heads, 0)

    def read_prompts(self) -> Tensor:
        with torch.autocast(self._lengths.device.type, enabled=False):
            return self._read_prompts()[self._prompts.copies]

    def _read_prompts(self) -> Tensor:
        """[N, V], after each distinct prompt; only its last token goes through all of the last layer."""
        flat, weights = self._prompts.flat, self._weights
        scratch, layout, ends = self._scratch_for(flat.tokens.shape[1]), flat.layout, flat.starts + flat.lengths - 1
        turns = self._rotations[flat.positions[0]][:, None]
        hidden = weights.policy.model.embed_tokens(flat.tokens[0])
        for number, layer in enumerate(weights.layers):
            self._project(layer, hidden, turns, scratch)
            self._memory.append(self._set_aside(scratch.fresh))
            query, key, value = (part.transpose(0, 1)[None] for part in (scratch.query, *scratch.fresh))
            if layer is weights.layers[-1]:
                hidden, query, layout = hidden[ends], query[:, :, ends], layout.at(ends)
                scratch = self._scratch_for(len(ends))
            rules = AttentionRules(scaling=1.0, window=layer.window, softcap=None)
            attended = layout.attend(number, query, key, value, rules)
            self._finish(layer, hidden, attended[0].flatten(1), scratch)
        return self._logits(hidden, scratch)

    def _set_aside(self, states: Tensor) -> Tensor:
        """A memory from [2, T, key heads, d]; columns before a prompt hold any token's, all finite."""
        flat, copies = self._prompts.flat, self._prompts.copies
        columns = torch.arange(self._column, device=states.device) - (self._column - self._lengths)[:, None]
        rows = states[:, flat.starts[copies, None] + columns.clamp(min=0)].transpose(2, 3)
        memory = rows.new_empty(*rows.shape[:3], self._room, rows.shape[4])
        memory[:, :, :, : self._column] = rows
        return memory

    def keep(self, rows: Tensor) -> None:
        self._turns = self._turns[:, rows]
        self._memory = [memory[:, rows] for memory in self._memory]
        if self._mask is not None:
            self._mask = self._mask.unflatten(0, (-1, self._weights.key_heads))[rows].flatten(0, 1)
        self._scratch = self._scratch_for(len(rows))

    def read(self, tokens: Tensor) -> Tensor:
        with torch.autocast(tokens.device.type, enabled=False):
            return self._read(tokens)

    def _read(self, tokens: Tensor) -> Tensor:
        logits = self._step(tokens, self._turns[self._column - self._longest])
        self._column += 1
        return logits

    def _step(self, tokens: Tensor, turns: Tensor) -> Tensor:
        """[B, V] after tokens [B], whose positions' turns are [B, 1, d / 2]."""
        scratch = self._scratch
        hidden = self._weights.policy.model.embed_tokens(tokens)
        for layer, memory in zip(self._weights.layers, self._memory, strict=True):
            self._project(layer, hidden, turns, scratch)
            self._write(memory, scratch.fresh)
            self._finish(layer, hidden, self._attend(layer, memory, scratch), scratch)
        return self._logits(hidden, scratch)

    def _project(self, layer: Layer, hidden: Tensor, turns: Tensor, scratch: Scratch) -> None:
        """Queries, keys and values of [B, E] by their positions' turns [B, 1, d / 2]."""
        multiply(self._normed(hidden, scratch), layer.attention_inputs, layer.attention_bias, scratch.states)
        turn(scratch.turned, layer.head_norm, turns, self._weights.epsilon)

    def _write(self, memory: Tensor, fresh: Tensor) -> None:
        """Puts this token's keys and values, [2, B, key heads, d], into a layer's memory."""
        memory.select(3, self._column).copy_(fresh)

    def _attend(self, layer: Layer, memory: Tensor, scratch: Scratch) -> Tensor:
        """[B, heads * d]"""
        columns, mask = self._seen(layer)
        keys, values = memory[:, :, :, columns].flatten(1, 2)
        query = scratch.query.reshape(len(keys), -1, keys.shape[2])
        return attend_rows(query, keys, values, mask).view(len(scratch.query), -1)

    def _seen(self, layer: Layer) -> tuple[slice, Tensor | None]:
        """The columns that this token attends to, and what is added to its scores there."""
        first = 0 if layer.window is None else max(0, self._column + 1 - layer.window)
        columns = slice(first, self._column + 1)
        return columns, None if self._mask is None else self._mask[:, :, columns]

    def _finish(self, layer: Layer, hidden: Tensor, attended: Tensor, scratch: Scratch) -> None:
        """Adds to hidden [B, E] what follows attention."""
        add_product(hidden, attended, layer.attention_output)
        torch.mm(self._normed(hidden, scratch), layer.gate_and_up, out=scratch.gate_and_up)
        add_product(hidden, self._weights.activation(scratch.gate).mul_(scratch.up), layer.down)

    def _logits(self, hidden: Tensor, scratch: Scratch) -> Tensor:
        last = self._normed(hidden, scratch) * self._weights.final_norm
        return torch.mm(last.to(self._weights.dtype), self._weights.vocabulary)

    def _normed(self, hidden: Tensor, scratch: Scratch) -> Tensor:
        """x / √(Σx² + E·ε): the root mean square norm but for √E and its weight, which the next matrix holds."""
        length = scratch.length
        torch.linalg.vector_norm(hidden, dim=-1, keepdim=True, dtype=torch.float32, out=length)
        return torch.div(hidden, torch.hypot(length, self._least, out=length), out=scratch.normed)


def rotations(policy: PreTrainedModel, room: int) -> Tensor:
    """[room, d / 2] complex64: the angle of every position, in the model's own words."""
    positions = torch.arange(room, device=policy.device)[None]
    cosine, sine = policy.model.rotary_emb(torch.zeros(1, device=policy.device), positions)
    half = cosine.shape[2] // 2
    return torch.complex(cosine[0, :, :half].contiguous(), sine[0, :, :half].contiguous())


def turn(states: Tensor, norm: Tensor | None, turns: Tensor, epsilon: float) -> None:
    """Gives [B, heads, d], whose turned halves are side by side, rotary positions by turns [B, 1, d / 2]."""
    turned = states.float()  # float32 is itself
    if norm is not None:
        turned = F.rms_norm(turned, turned.shape[-1:], None, epsilon) * norm
    torch.view_as_complex(turned.unflatten(2, (-1, 2))).mul_(turns)
    if turned is not states:
        states.copy_(turned)


def attend_rows(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
    """Softmax attention of [N, queries, d] on [N, W, d]; the mask is added."""
    scores = torch.bmm(query, keys.mT) if mask is None else torch.baddbmm(mask, query, keys.mT)
    return torch.bmm(scores.softmax(-1, dtype=torch.float32).to(values.dtype), values)


def multiply(states: Tensor, matrix: Tensor, bias: Tensor | None, out: Tensor) -> None:
    if bias is None:
        torch.mm(states, matrix, out=out)
    else:
        torch.addmm(bias, states, matrix, out=out)


def add_product(hidden: Tensor, states: Tensor, matrix: Tensor) -> None:
    """hidden += states · matrix, in hidden's dtype."""
    if hidden.dtype == matrix.dtype:
        hidden.addmm_(states, matrix)
    else:
        hidden.add_(states @ matrix)
