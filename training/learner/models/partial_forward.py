"""A flat pass that computes no more than it is asked for, for Llama and its relatives.

What is wanted of a pass are last hidden states at some places: where completion tokens are decided, or where a score is
read. The last layer's other tokens only lend their keys and values to these, so its queries, its output matrix and its
MLP are computed at the places alone; with two layers and as long a prompt as completion that is a third of the whole
pass. Besides, norms, rotary positions and gated units are operations of one forward and one backward each, with fewer
passes over memory than their formulas written out. Other kinds of model go through their own forward pass.
"""

import contextlib
from collections.abc import Iterator
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from transformers import LlamaModel, MistralModel, Qwen2Model, Qwen3Model
from transformers.models.llama.modeling_llama import LlamaDecoderLayer
from transformers.models.mistral.modeling_mistral import MistralAttention, MistralDecoderLayer
from transformers.models.qwen2.modeling_qwen2 import Qwen2DecoderLayer
from transformers.models.qwen3.modeling_qwen3 import Qwen3DecoderLayer

from training.learner.models.generic_forward import path_of, states_of_rows
from training.learner.models.lora import Role
from training.learner.models.packed_attention import AttentionRules, Layout, Row, forward_flat

KINDS: dict[type, type] = {
    LlamaModel: LlamaDecoderLayer,
    MistralModel: MistralDecoderLayer,
    Qwen2Model: Qwen2DecoderLayer,
    Qwen3Model: Qwen3DecoderLayer,
}


def states_at(network: Any, batch: Row, places: Tensor) -> Tensor:
    """[C, E]: the trunk's last hidden states at these places [C] of the batch's row.

    network: a transformers model with a head, loaded for flat passes, or a role.
    """
    with trunk_of(network) as trunk:
        path = path_of(network)
        if path.scoring != "packed":
            return states_of_rows(trunk, batch, places, path.scoring)
        if is_known(trunk):
            return read(trunk, batch, places)
        return cast(Tensor, forward_flat(trunk, batch).last_hidden_state[0, places])


@contextlib.contextmanager
def trunk_of(network: Any) -> Iterator[Any]:
    """The model without its head; of a role, with its adapter on."""
    if isinstance(network, Role):
        with network.base.wearing(network.name):
            yield network.base.model.base_model
    else:
        yield network.base_model


def read(trunk: Any, batch: Row, places: Tensor) -> Tensor:
    hidden = trunk.embed_tokens(batch.tokens[0])
    turns = tuple(part[0, :, None] for part in trunk.rotary_emb(hidden, batch.positions))
    *lower, last = trunk.layers
    for layer in lower:
        hidden = read_layer(layer, hidden, turns, batch.layout)
    return normed(trunk.norm, read_layer(last, hidden, turns, batch.layout, places))


def is_known(trunk: Any) -> bool:
    """Whether the trunk is of one of KINDS through and through: nothing of it replaced but linear layers."""
    layer = KINDS.get(type(trunk))
    return layer is not None and all(type(each) is layer for each in trunk.layers)


def read_layer(
    layer: Any, hidden: Tensor, turns: tuple[Tensor, ...], layout: Layout, places: Tensor | None = None
) -> Tensor:
    """The layer's output [T, E] from its input [T, E]; with places [C], its output there alone, [C, E]."""
    attention, states = layer.self_attn, normed(layer.input_layernorm, hidden)
    key = turned(heads_of(attention, "k", states), turns)
    value = heads_of(attention, "v", states)
    if places is not None:
        hidden, states = hidden[places], states[places]
        turns, layout = tuple(part[places] for part in turns), layout.at(places)
    query = turned(heads_of(attention, "q", states), turns)
    rules = AttentionRules(attention.scaling, window_of(attention), None)
    query, key, value = (part.transpose(0, 1)[None] for part in (query, key, value))
    attended = layout.attend(attention.layer_idx, query, key, value, rules)
    hidden = hidden + attention.o_proj(attended[0].flatten(1))
    states = normed(layer.post_attention_layernorm, hidden)
    return hidden + layer.mlp.down_proj(gated(layer.mlp, states))


def heads_of(attention: Any, name: str, states: Tensor) -> Tensor:
    """[T, heads, d]: queries, keys or values, normed where the model does so (Qwen3)."""
    heads = getattr(attention, f"{name}_proj")(states).unflatten(1, (-1, attention.head_dim))
    norm = getattr(attention, f"{name}_norm", None)
    return heads if norm is None else normed(norm, heads)


def window_of(attention: Any) -> int | None:
    """How many tokens a query sees; None: all."""
    if isinstance(attention, MistralAttention):
        return cast(int | None, attention.config.sliding_window)
    return getattr(attention, "sliding_window", None)  # Qwen's; Llama has none


def normed(norm: Any, states: Tensor) -> Tensor:
    return cast(Tensor, RootMeanSquareNorm.apply(states, norm.weight, norm.variance_epsilon))


def turned(heads: Tensor, turns: tuple[Tensor, ...]) -> Tensor:
    return cast(Tensor, Rotation.apply(heads, *turns))


def gated(mlp: Any, states: Tensor) -> Tensor:
    """The gate's activation times the other half."""
    gate, other = mlp.gate_proj(states), mlp.up_proj(states)
    if mlp.config.hidden_act == "silu":
        return cast(Tensor, GatedUnit.apply(gate, other))
    return cast(Tensor, mlp.act_fn(gate) * other)


class RootMeanSquareNorm(torch.autograd.Function):
    """w · x / √(mean x² + ε) along the last dimension, computed in float32 (Zhang & Sennrich 2019, equation 4)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        whole = x.float()
        scale = torch.linalg.vector_norm(whole, dim=-1, keepdim=True).square_()
        scale = scale.div_(x.shape[-1]).add_(epsilon).rsqrt_()
        ctx.save_for_backward(x, weight, scale)
        return (whole * scale).to(x.dtype) * weight

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None, None]:
        """With n = x·s: dw = Σ g·n, dx = s·(g·w − n·mean(g·w·n))."""
        x, weight, scale = ctx.saved_tensors
        unit = x.float() * scale
        along = gradient * unit
        own = along.flatten(0, -2).sum(0).to(weight.dtype) if ctx.needs_input_grad[1] else None
        mean = (along @ weight.to(along.dtype))[..., None] / x.shape[-1]
        within = (gradient * weight).float().sub_(unit.mul_(mean)).mul_(scale)
        return within.to(x.dtype), own, None


class Rotation(torch.autograd.Function):
    """Rotary positions: [T, heads, d], whose halves turn together, by cosines and sines [T, 1, d] of equal halves.

    Su et al. 2021, «RoFormer», §3.2.2; the gradient turns back.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        ctx.save_for_backward(cosine, sine)
        return rotate(x, cosine, sine)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        cosine, sine = ctx.saved_tensors
        return rotate(gradient, cosine, -sine), None, None


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    sine = sine[..., :half]
    rotated = x * cosine
    rotated[..., :half].addcmul_(x[..., half:], sine, value=-1)
    rotated[..., half:].addcmul_(x[..., :half], sine)
    return rotated


class GatedUnit(torch.autograd.Function):
    """silu(a) · b (Shazeer 2020, «GLU variants improve transformer», equation 6)."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, other: Tensor) -> Tensor:
        ctx.save_for_backward(gate, other)
        return F.silu(gate).mul_(other)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        gate, other = ctx.saved_tensors
        inner = torch.ops.aten.silu_backward(other.mul(gradient), gate)
        return inner, F.silu(gate).mul_(gradient)
