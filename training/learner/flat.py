"""Passes without padding: all sequences of a batch laid end to end, and an attention that keeps them apart.

A batch is one row of T tokens (T = the sum of the lengths), so that every layer but attention works on real tokens
only. Attention is a function of ours that transformers calls by name (`attn_implementation=ATTENTION`): it hands each
layer's queries, keys and values to the *layout* given to the model's forward pass, which knows who may see whom.
No mask is ever made from token ids, so a pad token that is also the end token is no special case.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface

ATTENTION = "accord_flat"


class Layout(Protocol):
    """Who attends to whom. Queries are [1, heads, T, d]; keys and values [1, key heads, T, d]."""

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, rules: "AttentionRules") -> Tensor:
        """What the attention layer gives, [1, T, heads, d]."""


class AttentionRules(NamedTuple):
    """What a model says of its attention beyond its being causal."""

    scaling: float | None  # multiplies the scores; None: 1 / sqrt(d)
    window: int | None  # a query sees itself and this many tokens before it, less one; None: all (Mistral, Gemma 2)
    softcap: float | None  # scores become softcap * tanh(score / softcap); None: they stay (Gemma 2)


def flat_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    layout: Layout | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """The attention function registered with transformers; `layout` comes from the model's forward call."""
    if layout is None:
        raise ValueError("a model loaded for flat passes needs a layout: use forward_flat")
    rules = AttentionRules(scaling, sliding_window, softcap)
    return layout.attend(int(module.layer_idx), query, key, value, rules), None  # type: ignore[arg-type]


AttentionInterface.register(ATTENTION, flat_attention)


@dataclass(frozen=True)
class Group:
    """Rows of queries of about one length, each beside the keys it may see.

    query_rows [N, Q] and key_rows [N, K] are positions in the flat batch; slots past a row's end repeat any token.
    mask [N, 1, Q, K] is true where a query sees a key: the first ones of its row, the last of them at its own position.
    None means causal, with equal rows of queries and keys.
    """

    query_rows: Tensor
    key_rows: Tensor
    mask: Tensor | None = None


@dataclass(frozen=True)
class FlatLayout:
    """Attention within groups of rows. slots [T]: where each token's output lies in the groups' slots, end to end."""

    groups: tuple[Group, ...]
    slots: Tensor

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, rules: AttentionRules) -> Tensor:
        heads, width = query.shape[1], value.shape[3]
        query, key, value = (states[0].transpose(0, 1).flatten(1) for states in (query, key, value))  # [T, heads * d]
        outputs = [self._attend_group(group, query, key, value, heads, rules) for group in self.groups]
        together = outputs[0] if len(outputs) == 1 else torch.cat(outputs)
        return F.embedding(self.slots, together).view(1, -1, heads, width)

    @staticmethod
    def _attend_group(
        group: Group, query: Tensor, key: Tensor, value: Tensor, heads: int, rules: AttentionRules
    ) -> Tensor:
        """[N * Q, heads * d]. F.embedding gathers rows; its gradient adds up those of a key that several rows see."""
        width = query.shape[1] // heads
        q = F.embedding(group.query_rows, query).unflatten(2, (heads, width)).transpose(1, 2)
        k, v = (
            F.embedding(group.key_rows, states).unflatten(2, (key.shape[1] // width, -1)).transpose(1, 2)
            for states in (key, value)
        )
        return scaled_attention(q, k, v, group.mask, rules).transpose(1, 2).flatten(0, 1).flatten(1)


def scaled_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, rules: AttentionRules) -> Tensor:
    """Softmax attention of [N, heads, Q, d] on [N, key heads, K, d]; no mask: causal, Q = K."""
    if rules.window is not None and rules.window < key.shape[2]:
        mask = windowed(mask, key.shape[2], rules.window, query.device)
    if rules.softcap is not None:
        return softcapped_attention(query, key, value, mask, rules)
    if query.shape[1] != key.shape[1]:
        repeats = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(repeats, 1), value.repeat_interleave(repeats, 1)
    return F.scaled_dot_product_attention(query, key, value, mask, is_causal=mask is None, scale=rules.scaling)


def softcapped_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, rules: AttentionRules
) -> Tensor:
    """Attention whose scores are bounded by a tanh (Gemma 2, Team et al. 2024, §2)."""
    repeats = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(repeats, 1), value.repeat_interleave(repeats, 1)
    scale = query.shape[3] ** -0.5 if rules.scaling is None else rules.scaling
    scores = query @ key.transpose(2, 3) * scale
    scores = torch.tanh(scores / rules.softcap) * rules.softcap  # type: ignore[operator]
    if mask is None:
        mask = torch.ones(scores.shape[2:], dtype=torch.bool, device=scores.device).tril()
    return scores.masked_fill(~mask, float("-inf")).softmax(-1, dtype=torch.float32).to(value.dtype) @ value


def windowed(mask: Tensor | None, width: int, window: int, device: torch.device) -> Tensor:
    """A Group's mask [..., Q, width], or the causal one, of queries that see no further back than window - 1 tokens."""
    if mask is None:
        mask = torch.ones(width, width, dtype=torch.bool, device=device).tril()
    seen = mask.sum(-1, keepdim=True)
    return mask & (torch.arange(width, device=device) >= seen - window)


class FlatBatch(NamedTuple):
    """Sequences laid end to end."""

    tokens: Tensor  # [1, T]
    positions: Tensor  # [1, T], from 0 in each sequence
    layout: Layout
    starts: Tensor  # [N], where each sequence begins in the row
    lengths: Tensor  # [N]


def flatten(sequences: Sequence[Sequence[int]], device: torch.device | str = "cpu") -> FlatBatch:
    """Lays sequences end to end, each seeing its own earlier tokens only. None may be empty."""
    lengths = torch.tensor([len(sequence) for sequence in sequences])
    tokens = torch.tensor([token for sequence in sequences for token in sequence])
    starts = lengths.cumsum(0) - lengths
    columns = torch.arange(int(lengths.max()))
    rows = starts[:, None] + columns.minimum(lengths[:, None] - 1)
    positions = torch.arange(len(tokens)) - starts.repeat_interleave(lengths)
    slots = torch.arange(len(sequences)).repeat_interleave(lengths) * len(columns) + positions
    tokens, positions, rows, slots = (part.to(device) for part in (tokens, positions, rows, slots))
    layout = FlatLayout((Group(rows, rows),), slots)
    return FlatBatch(tokens[None], positions[None], layout, starts.to(device), lengths.to(device))


def forward_flat(model: nn.Module, batch: FlatBatch, **options: Any) -> Any:
    """A transformers model's forward pass on a flat batch."""
    return model(input_ids=batch.tokens, position_ids=batch.positions, layout=batch.layout, use_cache=False, **options)
