"""Partial forward pass: hidden states at some indices of a packed row, for Llama and related architectures.

Callers need the last hidden states at a few indices only: those before completion tokens, or those where a score is
read. The other tokens of the last layer contribute keys and values only, so its queries, output projection and MLP are
computed at these indices alone. With two layers and a prompt as long as the completion this saves a third of the pass.
RMSNorm, RoPE and SwiGLU are single autograd functions with fewer passes over memory than their formulas written out.
Other architectures use transformers' own forward pass.
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

from training.learner.models.generic_forward import generic_states, path_of
from training.learner.models.gradient_checkpointing import computed_again, is_checkpointed
from training.learner.models.lora import AdapterView
from training.learner.models.packed_attention import AttentionRules, Layout, PackedBatch, forward_packed

LAYER_TYPES: dict[type, type] = {
    LlamaModel: LlamaDecoderLayer,
    MistralModel: MistralDecoderLayer,
    Qwen2Model: Qwen2DecoderLayer,
    Qwen3Model: Qwen3DecoderLayer,
}


def states_at(network: Any, batch: PackedBatch, indices: Tensor) -> Tensor:
    """Return the trunk's last hidden states [C, E] at these indices [C] of the batch's row.

    network: a transformers model with a head, or a LoRA view.
    """
    with trunk_of(network) as trunk:
        path = path_of(network)
        if path.scoring != "packed":
            return generic_states(trunk, batch, indices, path.scoring)
        if is_supported(trunk):
            return partial_forward(trunk, batch, indices)
        return cast(Tensor, forward_packed(trunk, batch).last_hidden_state[0, indices])


@contextlib.contextmanager
def trunk_of(network: Any) -> Iterator[Any]:
    """Give the model without its head; for a LoRA view, with its adapter active."""
    if isinstance(network, AdapterView):
        with network.base.active_adapter(network.name):
            yield network.base.model.base_model
    else:
        yield network.base_model


def is_supported(trunk: Any) -> bool:
    """Return whether the trunk and all its layers are of LAYER_TYPES. Replaced linear layers are allowed (LoRA)."""
    layer_type = LAYER_TYPES.get(type(trunk))
    return layer_type is not None and all(type(layer) is layer_type for layer in trunk.layers)


def partial_forward(trunk: Any, batch: PackedBatch, indices: Tensor) -> Tensor:
    hidden = trunk.embed_tokens(batch.tokens[0])
    rotation = tuple(part[0, :, None] for part in trunk.rotary_emb(hidden, batch.positions))
    *lower, last = trunk.layers
    for layer in lower:
        hidden = forward_layer(layer, hidden, rotation, batch.layout)
    return rms_norm(trunk.norm, forward_layer(last, hidden, rotation, batch.layout, indices))


def forward_layer(
    layer: Any, hidden: Tensor, rotation: tuple[Tensor, ...], layout: Layout, indices: Tensor | None = None
) -> Tensor:
    """Return the layer's output [T, E] for its input [T, E]; with indices [C], only the output there, [C, E].

    rotation: cosines and sines [T, 1, d] of the positions.
    """
    if is_checkpointed(layer):
        return cast(Tensor, computed_again(layer, compute_layer, layer, hidden, rotation, layout, indices))
    return compute_layer(layer, hidden, rotation, layout, indices)


def compute_layer(
    layer: Any, hidden: Tensor, rotation: tuple[Tensor, ...], layout: Layout, indices: Tensor | None
) -> Tensor:
    attention, states = layer.self_attn, rms_norm(layer.input_layernorm, hidden)
    key = apply_rotary(heads_of(attention, "k", states), rotation)
    value = heads_of(attention, "v", states)
    if indices is not None:
        hidden, states = hidden[indices], states[indices]
        rotation, layout = tuple(part[indices] for part in rotation), layout.at(indices)
    query = apply_rotary(heads_of(attention, "q", states), rotation)
    rules = AttentionRules(attention.scaling, window_of(attention), None)
    query, key, value = (part.transpose(0, 1)[None] for part in (query, key, value))
    attended = layout.attend(attention.layer_idx, query, key, value, rules)
    hidden = hidden + attention.o_proj(attended[0].flatten(1))
    states = rms_norm(layer.post_attention_layernorm, hidden)
    return hidden + layer.mlp.down_proj(gated_unit(layer.mlp, states))


def heads_of(attention: Any, name: str, states: Tensor) -> Tensor:
    """Return queries, keys or values [T, heads, d], with the norm per head that Qwen3 has."""
    heads = getattr(attention, f"{name}_proj")(states).unflatten(1, (-1, attention.head_dim))
    norm = getattr(attention, f"{name}_norm", None)
    return heads if norm is None else rms_norm(norm, heads)


def window_of(attention: Any) -> int | None:
    """Return the sliding window in tokens, or None for full attention."""
    if isinstance(attention, MistralAttention):
        return cast(int | None, attention.config.sliding_window)
    return getattr(attention, "sliding_window", None)  # Qwen has the attribute; Llama has no window


def rms_norm(norm: Any, states: Tensor) -> Tensor:
    return cast(Tensor, RMSNorm.apply(states, norm.weight, norm.variance_epsilon))


def apply_rotary(heads: Tensor, rotation: tuple[Tensor, ...]) -> Tensor:
    return cast(Tensor, RotaryEmbedding.apply(heads, *rotation))


def gated_unit(mlp: Any, states: Tensor) -> Tensor:
    """Return activation(gate) · up, the input of the MLP's down projection."""
    gate, up = mlp.gate_proj(states), mlp.up_proj(states)
    if mlp.config.hidden_act == "silu":
        return cast(Tensor, SwiGLU.apply(gate, up))
    return cast(Tensor, mlp.act_fn(gate) * up)


class RMSNorm(torch.autograd.Function):
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
        weight_gradient = along.flatten(0, -2).sum(0).to(weight.dtype) if ctx.needs_input_grad[1] else None
        mean = (along @ weight.to(along.dtype))[..., None] / x.shape[-1]
        x_gradient = (gradient * weight).float().sub_(unit.mul_(mean)).mul_(scale)
        return x_gradient.to(x.dtype), weight_gradient, None


class RotaryEmbedding(torch.autograd.Function):
    """RoPE of [T, heads, d] by cosines and sines [T, 1, d] of equal halves (Su et al. 2021, "RoFormer", §3.2.2).

    The gradient is rotated by the negative angle.
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


class SwiGLU(torch.autograd.Function):
    """silu(gate) · up (Shazeer 2020, "GLU variants improve transformer", equation 6)."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return F.silu(gate).mul_(up)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        gate_gradient = torch.ops.aten.silu_backward(up.mul(gradient), gate)
        return gate_gradient, F.silu(gate).mul_(gradient)
