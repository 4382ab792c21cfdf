"""Passes without padding: all sequences of a batch laid end to end, and an attention that keeps them apart.

A batch is one row of T tokens (T = the sum of the lengths), so that every layer but attention works on real tokens
only. Attention is a function of ours that transformers calls by name (`attn_implementation=ATTENTION`): it hands each
layer's queries, keys and values to the *layout* given to the model's forward pass, which knows who may see whom.
No mask is ever made from token ids, so a pad token that is also the end token is no special case.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface

ATTENTION = "accord_flat"
LIKE, FEWEST = 0.75, 4  # rows of one part: their lengths' smallest share of its longest; fewer stay with longer ones


# Arguments of attention functions that change nothing here: models are in evaluation mode, positions are in the queries
# and keys already, and every layer's cache is the layout's.
HARMLESS = frozenset(
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
    """Who attends to whom. Queries are [1, heads, T, d]; keys and values [1, key heads, T, d]."""

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, rules: "AttentionRules") -> Tensor:
        """What the attention layer gives, [1, T, heads, d]."""

    def at(self, places: Tensor) -> "Layout":
        """The same with queries at these places [C] alone, in this order; one may come more than once."""


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
    unknown = [name for name, value in others.items() if value is not None and name not in HARMLESS]
    if unknown:
        raise ValueError(f'attention has an argument "{unknown[0]}", which packed passes do not know')
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

    @property
    def slots(self) -> int:
        return self.query_rows.numel()

    def at(self, slots: Tensor, numbers: Tensor) -> tuple["Group", Tensor]:
        """A causal group's queries in these of its slots alone, as those of these numbers; and their new slots."""
        width = self.query_rows.shape[1]
        order = slots.argsort()
        row_of, columns, numbers = slots[order] // width, slots[order] % width, numbers[order]
        rows, which, counts = row_of.unique_consecutive(return_inverse=True, return_counts=True)
        within = torch.arange(len(slots), device=slots.device) - (counts.cumsum(0) - counts)[which]
        shape = len(rows), int(counts.max())
        query_rows = numbers[:1].expand(shape).clone()
        seen = torch.zeros(shape, dtype=torch.int64, device=slots.device)  # by slots that are empty: the first key
        query_rows[which, within], seen[which, within] = numbers, columns
        mask = torch.arange(width, device=slots.device) <= seen[:, None, :, None]
        new = torch.empty_like(slots)
        new[order] = which * shape[1] + within
        return Group(query_rows, self.key_rows[rows], mask), new


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

    def at(self, places: Tensor) -> "FlatLayout":
        wanted, ends = self.slots[places], [0, *itertools.accumulate(group.slots for group in self.groups)]
        parts = []
        order = torch.empty_like(wanted)
        before = 0
        for group, first, end in zip(self.groups, ends, ends[1:], strict=False):
            numbers = ((wanted >= first) & (wanted < end)).nonzero()[:, 0]
            if len(numbers):
                part, slots = group.at(wanted[numbers] - first, numbers)
                order[numbers] = slots + before
                before += part.slots
                parts.append(part)
        return FlatLayout(tuple(parts), order)

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


class Row(Protocol):
    """What a flat pass reads: one row of T tokens."""

    @property
    def tokens(self) -> Tensor:
        """[1, T]"""

    @property
    def positions(self) -> Tensor:
        """[1, T]"""

    @property
    def layout(self) -> Layout: ...


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
    positions = torch.arange(len(tokens)) - starts.repeat_interleave(lengths)
    layout = causal_layout(torch.arange(len(tokens)), lengths, torch.ones(len(tokens), dtype=torch.bool), device)
    tokens, positions = tokens[None].to(device), positions[None].to(device)
    return FlatBatch(tokens, positions, layout, starts.to(device), lengths.to(device))


def causal_layout(rows: Tensor, lengths: Tensor, owned: Tensor, device: torch.device | str) -> FlatLayout:
    """Causal attention in each of N rows, those of like lengths together so that little is padded.

    rows [S] are places in the flat batch, the N rows' end to end, lengths [N] theirs. Where rows have places in common
    the output is taken from the one that owns it: owned [S] is true once for each place.
    """
    starts = lengths.cumsum(0) - lengths
    slots = torch.empty(int(owned.sum()), dtype=torch.int64)
    groups, before = [], 0
    for chosen in like_lengths(lengths):
        width = int(lengths[chosen[0]])
        columns = torch.arange(width)
        reads = starts[chosen, None] + columns.minimum(lengths[chosen, None] - 1)
        own = owned[reads] & (columns < lengths[chosen, None])
        places = rows[reads]
        slots[places[own]] = before + own.flatten().nonzero()[:, 0]
        before += places.numel()
        groups.append(Group(places.to(device), places.to(device)))
    return FlatLayout(tuple(groups), slots.to(device))


def attention_slots(lengths: Sequence[int]) -> int:
    """Return the number of slots that attention holds queries and keys in for rows of these lengths, with padding.

    A completion's row is its prompt and itself: a prompt that several share is held once for each of them.
    """
    slots = count = longest = 0
    for length in sorted(lengths, reverse=True):  # as `like_lengths` divides them
        if not count or (length < LIKE * longest and count >= FEWEST):
            count, longest = 0, length
        count += 1
        slots += longest
    return slots


def batches_within(items: Sequence[Sequence[int]], budget: int) -> list[list[int]]:
    """Return indices of items in batches whose attention holds at most `budget` slots, like sizes together.

    items: the lengths of the rows that each takes. One that alone holds more goes alone.
    """
    sizes = [attention_slots(rows) for rows in items]
    batches: list[list[int]] = []
    lengths: list[int] = []
    for index in sorted(range(len(items)), key=lambda i: (-sizes[i], i)):
        if not batches or attention_slots([*lengths, *items[index]]) > budget:
            batches.append([])
            lengths = []
        batches[-1].append(index)
        lengths += items[index]
    return batches


def like_lengths(lengths: Tensor) -> list[Tensor]:
    """The indices of rows, the longest first, a new part where one is much shorter than its part's first."""
    ordered, order = lengths.sort(descending=True, stable=True)
    cuts, longest = [0], int(ordered[0])
    for place, length in enumerate(ordered.tolist()):
        if length < LIKE * longest and place - cuts[-1] >= FEWEST:
            cuts.append(place)
            longest = length
    return [order[first:end] for first, end in itertools.pairwise([*cuts, len(order)])]


def forward_flat(model: nn.Module, batch: Row, **options: Any) -> Any:
    """A transformers model's forward pass on a flat batch."""
    return model(input_ids=batch.tokens, position_ids=batch.positions, layout=batch.layout, use_cache=False, **options)
