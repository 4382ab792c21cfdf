"""Packed passes: sequences laid end to end without padding, and an attention function that keeps them separate.

A batch is one row of T tokens (T = the sum of the lengths), so every layer except attention computes real tokens only.
transformers calls our attention function by name (`attn_implementation=ATTENTION`). The function hands the queries,
keys and values of each layer to the *layout* that the forward pass got as an argument; the layout defines which
token attends to which. Masks are never made from token ids, so a pad token may also be the EOS token.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface

ATTENTION = "accord_packed"
# Arguments of attention functions that change nothing here: models are in evaluation mode, positions are already in the
# queries and keys, and the layout holds every cache.
IGNORED_ARGUMENTS = frozenset(
    [
        "dropout",
        "is_causal",
        "position_ids",
        "cache_position",
        "use_cache",
        "output_attentions",
        "return_dict",
        "output_hidden_states",
        "output_router_logits",
        "logits_to_keep",
        "position_embeddings",
    ]
)


class Layout(Protocol):
    """Attention pattern of a packed row. Queries are [1, heads, T, d]; keys and values [1, key heads, T, d]."""

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, rules: "AttentionRules") -> Tensor:
        """Return the output of an attention layer, [1, T, heads, d]."""

    def at(self, indices: Tensor) -> "Layout":
        """Return the layout of the queries at these indices [C] of the row, in this order; indices may repeat."""


class AttentionRules(NamedTuple):
    """Parameters of a model's causal attention."""

    scaling: float | None  # multiplies the scores; None: 1 / sqrt(d)
    window: int | None  # sliding window: the query's own token and window - 1 before it; None: all (Mistral, Gemma 2)
    softcap: float | None  # scores become softcap * tanh(score / softcap); None: unchanged (Gemma 2)


def packed_attention(
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
    """Attention function registered with transformers; `layout` is an argument of the model's forward call.

    Raises ValueError on an unsupported argument, since ignoring it could change the result.
    """
    unknown = [name for name, value in others.items() if value is not None and name not in IGNORED_ARGUMENTS]
    if unknown:
        raise ValueError(f'packed passes do not support the attention argument "{unknown[0]}"')
    if layout is None:
        raise ValueError("the model uses packed attention and got no layout: call forward_packed")
    rules = AttentionRules(scaling, sliding_window, softcap)
    return layout.attend(int(module.layer_idx), query, key, value, rules), None  # type: ignore[arg-type]


AttentionInterface.register(ATTENTION, packed_attention)


@dataclass(frozen=True)
class AttentionGroup:
    """Rows of queries of similar length, each with the keys that it may attend to.

    query_rows [N, Q] and key_rows [N, K] are indices into the packed row; slots past the end of a row repeat any token.
    mask [N, 1, Q, K] is true where a query attends to a key; positions, [N, Q] and [N, K], are those of queries and
    keys, for sliding windows. Both are None for causal attention with equal rows of queries and keys.
    part: with N = 1, the prompt group whose tokens begin with these keys; the keys are then read in place, not copied.
    """

    query_rows: Tensor
    key_rows: Tensor
    mask: Tensor | None = None
    positions: tuple[Tensor, Tensor] | None = None
    part: int | None = None
    masks: dict[Any, Tensor] = field(default_factory=dict, compare=False)  # cache of mask_for, shared by all layers

    @property
    def slots(self) -> int:
        return self.query_rows.numel()

    def to(self, device: torch.device | str) -> "AttentionGroup":
        mask = None if self.mask is None else self.mask.to(device)
        positions = None if self.positions is None else (self.positions[0].to(device), self.positions[1].to(device))
        return AttentionGroup(self.query_rows.to(device), self.key_rows.to(device), mask, positions, self.part)

    def at(self, slots: Tensor, numbers: Tensor) -> tuple["AttentionGroup", Tensor]:
        """Return a group with the queries in these slots only, renamed to `numbers`, and the new slot of each."""
        width = self.query_rows.shape[1]
        order = slots.argsort()
        row_of, columns, numbers = slots[order] // width, slots[order] % width, numbers[order]
        rows, which, counts = row_of.unique_consecutive(return_inverse=True, return_counts=True)
        within = torch.arange(len(slots), device=slots.device) - (counts.cumsum(0) - counts)[which]
        shape = len(rows), int(counts.max())
        query_rows = numbers[:1].expand(shape).clone()
        chosen = torch.zeros(shape, dtype=torch.int64, device=slots.device)  # empty slots repeat the first query
        query_rows[which, within], chosen[which, within] = numbers, columns
        if self.mask is None or self.positions is None:
            columns = torch.arange(width, device=slots.device)
            mask = columns <= chosen[:, None, :, None]
            positions = chosen, columns.expand(len(rows), -1)
        else:
            mask = self.mask[rows[:, None], :, chosen].transpose(1, 2)
            positions = self.positions[0][rows[:, None], chosen], self.positions[1][rows]
        new = torch.empty_like(slots)
        new[order] = which * shape[1] + within
        return AttentionGroup(query_rows, self.key_rows[rows], mask, positions, self.part), new

    def mask_for(self, rules: "AttentionRules", dtype: torch.dtype) -> Tensor | None:
        """Return the mask with a layer's sliding window: added to scores [N, 1, Q, K], or boolean with a softcap."""
        if self.mask is None or self.positions is None:
            return self.mask
        kind = rules.window, None if rules.softcap else dtype
        if kind not in self.masks:
            queries, keys = self.positions
            near = None if rules.window is None else (queries[:, :, None] - keys[:, None] < rules.window)[:, None]
            mask = self.mask if near is None else self.mask & near
            blocked = torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, float("-inf"))
            self.masks[kind] = mask if rules.softcap else blocked
        return self.masks[kind]


class GroupSpans(NamedTuple):
    """Index ranges in the packed row of a prompt (may be empty) and of its completions, one after the other."""

    prompt: range
    completions: list[range]

    @property
    def sizes(self) -> "GroupSizes":
        return len(self.prompt), list(map(len, self.completions))


GroupSizes = tuple[int, Sequence[int]]  # tokens of a prompt, and of each completion that shares it


def unshared(sizes: GroupSizes) -> GroupSizes:
    """Return the sizes of the same completions if each is a separate sequence with a copy of the prompt."""
    prompt, lengths = sizes
    return 0, [prompt + length for length in lengths]


@dataclass(frozen=True)
class PackedLayout:
    """Attention within groups of rows.

    slots [T]: index of each token's output in the slots of all groups, laid end to end.
    spans: the prompt groups of the row; parts: number of tokens of each, set only if a group reads keys in place.
    """

    groups: tuple[AttentionGroup, ...]
    slots: Tensor
    spans: tuple[GroupSpans, ...] = ()
    parts: tuple[int, ...] = ()

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, rules: AttentionRules) -> Tensor:
        heads, width = query.shape[1], value.shape[3]
        query, key, value = (states[0].transpose(0, 1).flatten(1) for states in (query, key, value))  # [T, heads * d]
        parts = [states.split(self.parts) if self.parts else () for states in (key, value)]
        outputs = []
        for group in self.groups:
            if group.part is None:
                keys, values = F.embedding(group.key_rows, key), F.embedding(group.key_rows, value)
            else:
                keys, values = (states[group.part][None, : group.key_rows.shape[1]] for states in parts)
            outputs.append(self._attend_group(group, query, keys, values, heads, rules))
        together = outputs[0] if len(outputs) == 1 else torch.cat(outputs)
        return F.embedding(self.slots, together).view(1, -1, heads, width)

    def at(self, indices: Tensor) -> "PackedLayout":
        wanted, ends = self.slots[indices], [0, *itertools.accumulate(group.slots for group in self.groups)]
        groups = []
        order = torch.empty_like(wanted)
        before = 0
        for group, first, end in zip(self.groups, ends, ends[1:], strict=False):
            numbers = ((wanted >= first) & (wanted < end)).nonzero()[:, 0]
            if len(numbers):
                narrow, slots = group.at(wanted[numbers] - first, numbers)
                order[numbers] = slots + before
                before += narrow.slots
                groups.append(narrow)
        return PackedLayout(tuple(groups), order, self.spans, self.parts)

    @staticmethod
    def _attend_group(
        group: AttentionGroup, query: Tensor, key: Tensor, value: Tensor, heads: int, rules: AttentionRules
    ) -> Tensor:
        """Return the output [N * Q, heads * d] of a group.

        F.embedding gathers rows; its gradient sums over all rows that read the same key.
        """
        width = query.shape[1] // heads
        q = F.embedding(group.query_rows, query).unflatten(2, (heads, width)).transpose(1, 2)
        k, v = (states.unflatten(2, (key.shape[2] // width, -1)).transpose(1, 2) for states in (key, value))
        mask = group.mask_for(rules, q.dtype)
        rules = rules if mask is None else rules._replace(window=None)
        return scaled_attention(q, k, v, mask, rules).transpose(1, 2).flatten(0, 1).flatten(1)


def scaled_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, rules: AttentionRules) -> Tensor:
    """Return softmax attention of [N, heads, Q, d] to [N, key heads, K, d]. Without a mask: causal, Q = K."""
    if rules.window is not None and rules.window < key.shape[2]:
        mask = sliding_window_mask(mask, key.shape[2], rules.window, query.device)
    if rules.softcap is not None:
        return softcapped_attention(query, key, value, mask, rules)
    if query.shape[1] != key.shape[1]:
        repeats = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(repeats, 1), value.repeat_interleave(repeats, 1)
    return F.scaled_dot_product_attention(query, key, value, mask, is_causal=mask is None, scale=rules.scaling)


def softcapped_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, rules: AttentionRules
) -> Tensor:
    """Return attention whose scores are bounded by a tanh (Gemma 2, Team et al. 2024, §2)."""
    repeats = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(repeats, 1), value.repeat_interleave(repeats, 1)
    scale = query.shape[3] ** -0.5 if rules.scaling is None else rules.scaling
    scores = query @ key.transpose(2, 3) * scale
    scores = torch.tanh(scores / rules.softcap) * rules.softcap  # type: ignore[operator]
    if mask is None:
        mask = torch.ones(scores.shape[2:], dtype=torch.bool, device=scores.device).tril()
    return scores.masked_fill(~mask, float("-inf")).softmax(-1, dtype=torch.float32).to(value.dtype) @ value


def sliding_window_mask(mask: Tensor | None, width: int, window: int, device: torch.device) -> Tensor:
    """Return a group's mask [..., Q, width], or the causal one, without keys more than window - 1 tokens back."""
    if mask is None:
        mask = torch.ones(width, width, dtype=torch.bool, device=device).tril()
    visible = mask.sum(-1, keepdim=True)
    return mask & (torch.arange(width, device=device) >= visible - window)


class PackedBatch(Protocol):
    """Input of a packed pass: one row of T tokens."""

    @property
    def tokens(self) -> Tensor:
        """[1, T]"""

    @property
    def positions(self) -> Tensor:
        """[1, T]"""

    @property
    def layout(self) -> Layout: ...


def forward_packed(model: nn.Module, batch: PackedBatch, **options: Any) -> Any:
    """Run a transformers model's forward pass on a packed batch."""
    return model(input_ids=batch.tokens, position_ids=batch.positions, layout=batch.layout, use_cache=False, **options)
