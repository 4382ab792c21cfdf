"""Weights of Llama and related architectures, arranged for fused decoding steps (see `fused_decoder`).

- One matrix gives queries, keys and values; another gives gate and up.
- Norm weights and the attention scale are multiplied into those matrices.
- The two halves of each head that RoPE rotates together are neighbours, so a rotation is one complex product. Queries
  and keys are reordered alike, so their products do not change.
- On a CPU, matrices are stored [in, out], not [out, in] as in nn.Linear: products of few rows are 1.3 to 1.6 times
  faster.

The matrices are copies of the current weights: gather them again after every update, at the cost of two or three steps
of eight rows. `sampler.sample` does so at each call.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    GemmaForCausalLM,
    LlamaForCausalLM,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen2ForCausalLM,
    Qwen3ForCausalLM,
)

from training.learner.models.generic_forward import path_of
from training.learner.models.gradient_checkpointing import has_checkpoints
from training.learner.models.lora import AdaptedLayer, AdapterView
from training.learner.models.partial_forward import window_of

KINDS = (LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM, GemmaForCausalLM)
MAX_COPIED_ELEMENTS = 2**25  # of a matrix: larger ones are not copied to [in, out]
FIXED_ROTATIONS = ("default", "linear", "llama3", "yarn")  # RoPE types whose angles ignore the length of the text


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


def gather_weights(policy: Any) -> Weights | None:
    """Return the current weights of a policy, or None if the fused step may not be used.

    An adapter is merged into each matrix as it is copied. The copies take the memory of a second base, so an adapter
    whose layers are checkpointed, to save memory, does without them.
    """
    if not isinstance(policy, AdapterView):
        return gather_plain(policy)
    if has_checkpoints(policy):
        return None
    with policy.base.active_adapter(policy.name):
        return gather_plain(policy.base.model)


def gather_plain(policy: PreTrainedModel) -> Weights | None:
    """Return the weights of a transformers model with the adapters that are active now."""
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
    """Return whether the fused step may be used: packed decoding is exact, and all modules are those expected here.

    Extra biases, partial rotations and patched layers are not supported.
    """
    if path_of(policy).decoding != "packed" or type(policy) not in KINDS:
        return False
    rotary = policy.model.rotary_emb
    rotates_whole_heads = 2 * len(rotary.inv_freq) == policy.model.layers[0].self_attn.head_dim
    matrices = [policy.lm_head, *(m for layer in policy.model.layers for m in matrices_of(layer))]
    without_bias = [m for layer in policy.model.layers for m in (layer.self_attn.o_proj, *matrices_of(layer)[4:])]
    return (
        rotates_whole_heads
        and rotary.rope_type in FIXED_ROTATIONS
        and all(type(plain(m)) is nn.Linear for m in matrices)
        and all(plain(m).bias is None for m in [policy.lm_head, *without_bias])
    )


def plain(module: Any) -> Any:
    """Return the layer under an adapter."""
    return module.layer if isinstance(module, AdaptedLayer) else module


@torch.no_grad()
def weight_of(module: Any) -> Tensor:
    """Return the float32 matrix [out, in] of a linear layer, with its active adapter."""
    weight = plain(module).weight.float()
    adapter = module.adapters.get(module.active) if isinstance(module, AdaptedLayer) else None
    return weight if adapter is None else weight + adapter.change()


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
        side_by_side(weight_of(m) * s, d) if rotated else weight_of(m)
        for m, rotated, s in zip(inputs, is_rotated, scales, strict=True)
    ]
    bias = None
    if plain(inputs[0]).bias is not None:
        biases = zip(inputs, is_rotated, scales, strict=True)
        bias = torch.cat(
            [
                side_by_side(plain(m).bias.float() * s, d) if rotated else plain(m).bias.float()
                for m, rotated, s in biases
            ]
        )
    head_norm = None
    if has_head_norm:
        query, key = (side_by_side(norm.weight.float(), d) for norm in (attention.q_norm, attention.k_norm))
        rows = [(query * scale).expand(config.num_attention_heads, d), key.expand(config.num_key_value_heads, d)]
        head_norm = torch.cat(rows)
    gate_and_up = torch.cat([weight_of(mlp.gate_proj), weight_of(mlp.up_proj)])
    root = config.hidden_size**0.5  # see FusedStep._normalize
    return Layer(
        input_by_output(torch.cat(arranged).mul_(norm_weight(layer.input_layernorm).float() * root), dtype),
        None if bias is None else bias.to(dtype),
        input_by_output(weight_of(attention.o_proj), dtype),
        head_norm,
        input_by_output(gate_and_up.mul_(norm_weight(layer.post_attention_layernorm).float() * root), dtype),
        input_by_output(weight_of(mlp.down_proj), dtype),
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
