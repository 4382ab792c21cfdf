"""Hidden states where they are read only: of all other tokens the last layer computes keys and values, no more.

A layer sees a token's past through keys and values alone. So a token whose hidden state nobody reads needs no query, no
attention and no MLP in the last layer: 14 of the 16 E² multiplications that a Llama layer of width E spends on a token,
its MLP being four times as wide. A reward model reads one token a completion; a policy and a critic read no prompt
token but its last.

Kinds of model that are known here compute so; all others compute every token, and the rest is left unread.
"""

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import LlamaModel, MistralModel, Qwen2Model, Qwen3Model
from transformers.models.llama.modeling_llama import rotate_half

from training.learner.flat import AttentionRules, FlatLayout, Layout
from training.learner.lora import Role

KINDS = (LlamaModel, MistralModel, Qwen2Model, Qwen3Model)


class Wanted(NamedTuple):
    """The tokens of a flat batch whose hidden states are read, W of T."""

    places: Tensor  # [W], in the flat row
    layout: FlatLayout  # of them alone: query_rows and slots count among the W, key_rows among the T


def states_at(network: Any, tokens: Tensor, positions: Tensor, layout: Layout, wanted: Wanted) -> Tensor:
    """[W, E]: the trunk's last hidden states at the wanted places of a flat batch, tokens and positions [1, T].

    network: a transformers model with a head, loaded for flat passes, or a role.
    """
    with trunk_of(network) as trunk:
        if not is_known(trunk):
            whole = trunk(input_ids=tokens, position_ids=positions, layout=layout, use_cache=False)
            return whole.last_hidden_state[0, wanted.places]
        hidden = trunk.embed_tokens(tokens)
        turns = trunk.rotary_emb(hidden, position_ids=positions)
        for layer in trunk.layers[:-1]:
            hidden = layer(hidden, position_ids=positions, position_embeddings=turns, layout=layout, use_cache=False)
        return trunk.norm(last_layer(trunk.layers[-1], hidden, turns, wanted))[0]


@contextlib.contextmanager
def trunk_of(network: Any) -> Iterator[Any]:
    """The model without its head; of a role, with its adapter on."""
    if isinstance(network, Role):
        with network.base.wearing(network.name):
            yield network.base.model.base_model
    else:
        yield network.base_model


def is_known(trunk: Any) -> bool:
    return type(trunk) in KINDS


def last_layer(layer: Any, hidden: Tensor, turns: tuple[Tensor, Tensor], wanted: Wanted) -> Tensor:
    """[1, W, E] from [1, T, E]: the layer's output at the wanted places; `turns` are the cosines and sines of all."""
    attention, normed = layer.self_attn, layer.input_layernorm(hidden)
    own_turns = tuple(part[:, wanted.places] for part in turns)
    query = by_head(attention.q_proj(normed.index_select(1, wanted.places)), attention, "q_norm")
    key = by_head(attention.k_proj(normed), attention, "k_norm")
    value = by_head(attention.v_proj(normed), attention, "no norm")
    attended = wanted.layout.attend(
        attention.layer_idx, turned(query, own_turns), turned(key, turns), value, rules_of(attention)
    )
    hidden = hidden.index_select(1, wanted.places) + attention.o_proj(attended.flatten(2))
    return hidden + layer.mlp(layer.post_attention_layernorm(hidden))


def by_head(states: Tensor, attention: Any, norm: str) -> Tensor:
    """[1, heads, T, d] from [1, T, heads · d], normed head by head if the layer has this norm (Qwen3)."""
    states = states.unflatten(2, (-1, attention.head_dim))
    return getattr(attention, norm, nn.Identity())(states).transpose(1, 2)


def turned(states: Tensor, turns: tuple[Tensor, ...]) -> Tensor:
    """Rotary positions on [1, heads, T, d]."""
    cosine, sine = (part[:, None] for part in turns)
    return states * cosine + rotate_half(states) * sine


def rules_of(attention: Any) -> AttentionRules:
    """What the layer would hand to its attention function. Mistral's window is of all layers, Qwen's of some."""
    window = getattr(attention, "sliding_window", getattr(attention.config, "sliding_window", None))
    return AttentionRules(attention.scaling, None if type(attention).__name__ == "LlamaAttention" else window, None)


def prefix_mask(seen: Tensor, width: int) -> Tensor:
    """[N, 1, Q, width] from [N, Q]: each query sees that many first keys of its row."""
    return (torch.arange(width, device=seen.device) < seen[:, :, None])[:, None]
