"""Passes without padding: all sequences of a batch laid end to end, and an attention that keeps them apart.

A batch is one row of T tokens (T = the sum of the lengths), so that every layer but attention works on real tokens
only. Attention is a function of ours that transformers calls by name (`attn_implementation=ATTENTION`): it hands each
layer's queries, keys and values to the *layout* given to the model's forward pass, which knows who may see whom.
No mask is ever made from token ids, so a pad token that is also the end token is no special case.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface

ATTENTION = "accord_flat"
LIKE, FEWEST = 0.75, 4  # rows of one part: their lengths' smallest share of its longest; fewer stay with longer ones
CHUNK_TOKENS = 64, 1024  # tokens of completions that attend to their prompt in one row: the limit's least and most
VIEWED_PROMPT = 256  # tokens of a prompt from which on its first chunk is a group of its own, without copies of keys


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
    mask [N, 1, Q, K] is true where a query sees a key; positions, [N, Q] and [N, K], tell how far apart the two are.
    None means causal, with equal rows of queries and keys.
    part: with N = 1, which part of the flat batch begins with these keys, which are then not copied.
    """

    query_rows: Tensor
    key_rows: Tensor
    mask: Tensor | None = None
    positions: tuple[Tensor, Tensor] | None = None
    part: int | None = None
    masks: dict[Any, Tensor] = field(default_factory=dict, compare=False)  # made of mask, the same for all layers

    @property
    def slots(self) -> int:
        return self.query_rows.numel()

    def at(self, slots: Tensor, numbers: Tensor) -> tuple["Group", Tensor]:
        """The queries in these of the group's slots alone, as those of these numbers; and their new slots."""
        width = self.query_rows.shape[1]
        order = slots.argsort()
        row_of, columns, numbers = slots[order] // width, slots[order] % width, numbers[order]
        rows, which, counts = row_of.unique_consecutive(return_inverse=True, return_counts=True)
        within = torch.arange(len(slots), device=slots.device) - (counts.cumsum(0) - counts)[which]
        shape = len(rows), int(counts.max())
        query_rows = numbers[:1].expand(shape).clone()
        chosen = torch.zeros(shape, dtype=torch.int64, device=slots.device)  # slots that are empty repeat the first one
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
        return Group(query_rows, self.key_rows[rows], mask, positions, self.part), new

    def mask_for(self, rules: "AttentionRules", dtype: torch.dtype) -> Tensor | None:
        """The mask under a layer's window: added to scores [N, 1, Q, K], or with a soft cap true and false."""
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


@dataclass(frozen=True)
class FlatLayout:
    """Attention within groups of rows. slots [T]: where each token's output lies in the groups' slots, end to end.

    families: the sequences that the layout keeps apart, by prompt; parts: how many tokens each of them takes, or one
    number for all.
    """

    groups: tuple[Group, ...]
    slots: Tensor
    families: tuple["Family", ...] = ()
    parts: tuple[int, ...] = ()

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, rules: AttentionRules) -> Tensor:
        heads, width = query.shape[1], value.shape[3]
        query, key, value = (states[0].transpose(0, 1).flatten(1) for states in (query, key, value))  # [T, heads * d]
        parts = [states.split(self.parts) if self.parts else () for states in (key, value)]
        outputs = []
        for group in self.groups:
            keys, values = (
                F.embedding(group.key_rows, states)
                if group.part is None
                else own[group.part][None, : group.key_rows.shape[1]]
                for states, own in zip((key, value), parts, strict=True)
            )
            outputs.append(self._attend_group(group, query, keys, values, heads, rules))
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
        return FlatLayout(tuple(parts), order, self.families, self.parts)

    def separate(self) -> "FlatLayout":
        """The same sequences with a row for each, in which it stands whole, for passes that cannot share a prompt."""
        if not self.families:
            return self
        sequences = [(family, own) for family in self.families for own in family.completions]
        rows = [place for family, own in sequences for place in (*family.prompt, *own)]
        lengths = [len(family.prompt) + len(own) for family, own in sequences]
        first = [own is family.completions[0] for family, own in sequences]
        owned = [is_own for (family, own), is_first in zip(sequences, first, strict=True)
                 for is_own in [is_first] * len(family.prompt) + [True] * len(own)]  # fmt: skip
        return causal_layout(torch.tensor(rows), torch.tensor(lengths), torch.tensor(owned), self.slots.device)

    @staticmethod
    def _attend_group(
        group: Group, query: Tensor, key: Tensor, value: Tensor, heads: int, rules: AttentionRules
    ) -> Tensor:
        """[N * Q, heads * d]. F.embedding gathers rows; its gradient adds up those of a key that several rows see."""
        width = query.shape[1] // heads
        q = F.embedding(group.query_rows, query).unflatten(2, (heads, width)).transpose(1, 2)
        k, v = (states.unflatten(2, (key.shape[2] // width, -1)).transpose(1, 2) for states in (key, value))
        mask = group.mask_for(rules, q.dtype)
        rules = rules if mask is None else rules._replace(window=None)
        return scaled_attention(q, k, v, mask, rules).transpose(1, 2).flatten(0, 1).flatten(1)


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
    slots = torch.empty(int(rows.max()) + 1, dtype=torch.int64)
    groups, before = [], 0
    for chosen in map(torch.tensor, like_lengths(lengths.tolist())):
        width = int(lengths[chosen[0]])
        columns = torch.arange(width)
        reads = starts[chosen, None] + columns.minimum(lengths[chosen, None] - 1)
        own = owned[reads] & (columns < lengths[chosen, None])
        places = rows[reads]
        slots[places[own]] = before + own.flatten().nonzero()[:, 0]
        before += places.numel()
        groups.append(Group(places.to(device), places.to(device)))
    return FlatLayout(tuple(groups), slots.to(device))


class Family(NamedTuple):
    """Places in the flat batch of a prompt (may be empty) and of completions of it, one after the other."""

    prompt: range
    completions: list[range]

    @property
    def sizes(self) -> "Sizes":
        return len(self.prompt), list(map(len, self.completions))


Sizes = tuple[int, Sequence[int]]  # tokens of a prompt, and of each completion that shares it


def apart(sizes: Sizes) -> Sizes:
    """The same completions in rows of their own, each with its prompt in it."""
    prompt, lengths = sizes
    return 0, [prompt + length for length in lengths]


class Chunk(NamedTuple):
    """Completions of one prompt whose queries are computed in one row, beside the keys of the prompt and their own."""

    family: int
    completions: list[int]
    width: int  # keys: tokens of the prompt and of the completions
    queries: int  # tokens of the completions
    is_viewed: bool  # its keys are the flat batch's own, in one piece


def family_layout(families: Sequence[Family], device: torch.device | str) -> FlatLayout:
    """Attention in which each completion sees its prompt and its own earlier tokens only.

    A prompt that several completions share is a row of its own, so that its queries are computed once. Beside its keys
    stand those of a chunk of completions, under a mask that keeps these apart.
    """
    sizes = [family.sizes for family in families]
    whole = [
        list(family.prompt) if is_shared(size) else [*family.prompt, *own]
        for family, size in zip(families, sizes, strict=True)
        for own in (family.completions[:1] if is_shared(size) else family.completions)
    ]
    rows = torch.tensor([place for row in whole for place in row])
    lengths = torch.tensor([len(row) for row in whole])
    layout = causal_layout(rows, lengths, torch.ones(len(rows), dtype=torch.bool), "cpu")
    count = max(family.completions[-1].stop for family in families)
    slots = torch.empty(count, dtype=torch.int64)
    slots[rows] = layout.slots[rows]
    groups = [Group(group.query_rows.to(device), group.key_rows.to(device)) for group in layout.groups]
    before = sum(group.slots for group in groups)
    chunks = [chunk for number, size in enumerate(sizes) for chunk in chunks_of(number, size)]
    copied = [chunk for chunk in chunks if not chunk.is_viewed]
    together = [[copied[i] for i in part] for part in like_lengths([chunk.width for chunk in copied])]
    for part in [*together, *([chunk] for chunk in chunks if chunk.is_viewed)]:
        group, own = chunk_group(families, part)
        slots[group.query_rows[own]] = before + own.flatten().nonzero()[:, 0]
        before += group.slots
        queries, keys = group.positions  # type: ignore[misc]
        groups.append(
            Group(group.query_rows.to(device), group.key_rows.to(device), group.mask.to(device),  # type: ignore[union-attr]
                  (queries.to(device), keys.to(device)), group.part)
        )  # fmt: skip
    parts = [size[0] + sum(size[1]) for size in sizes] if any(chunk.is_viewed for chunk in chunks) else []
    return FlatLayout(tuple(groups), slots.to(device), tuple(families), tuple(parts))


def chunk_group(families: Sequence[Family], chunks: Sequence[Chunk]) -> tuple[Group, Tensor]:
    """A group with a row for each chunk, on the CPU; true [N, Q] where a query's slot is not padding."""
    shape = len(chunks), max(chunk.width for chunk in chunks)
    places, positions = torch.zeros(shape, dtype=torch.int64), torch.zeros(shape, dtype=torch.int64)
    owners = torch.full(shape, -1)  # 0: the prompt's; from 1 on the completions'; -1: padding
    reads = torch.zeros(len(chunks), max(chunk.queries for chunk in chunks), dtype=torch.int64)
    own = torch.zeros(reads.shape, dtype=torch.bool)
    for row, chunk in enumerate(chunks):
        family = families[chunk.family]
        start = len(family.prompt)
        runs = [family.prompt, *(family.completions[i] for i in chunk.completions)]
        lengths = torch.tensor([len(run) for run in runs])
        place = torch.cat([torch.arange(run.start, run.stop) for run in runs])
        places[row], places[row, : chunk.width] = place[-1], place
        owners[row, : chunk.width] = torch.arange(len(runs)).repeat_interleave(lengths)
        positions[row, : chunk.width] = torch.cat(
            [torch.arange(length) + start * (number > 0) for number, length in enumerate(lengths.tolist())]
        )
        reads[row] = (start + torch.arange(reads.shape[1])).clamp(max=chunk.width - 1)
        own[row, : chunk.queries] = True
    query_owners, query_positions = owners.gather(1, reads)[:, :, None], positions.gather(1, reads)
    mask = (owners[:, None] == 0) | (owners[:, None] == query_owners)
    mask &= positions[:, None] <= query_positions[:, :, None]
    part = chunks[0].family if chunks[0].is_viewed else None
    return Group(places.gather(1, reads), places, mask[:, None], (query_positions, positions), part), own


def is_shared(sizes: Sizes) -> bool:
    return sizes[0] > 0 and len(sizes[1]) > 1


def chunks_of(number: int, sizes: Sizes) -> list[Chunk]:
    """Divide completions that share a prompt into chunks of like sizes.

    The more tokens in a chunk, the fewer copies of the prompt's keys and the larger the mask: a chunk has at most about
    as many as the prompt, within CHUNK_TOKENS.
    """
    if not is_shared(sizes):
        return []
    prompt, lengths = sizes
    low, high = CHUNK_TOKENS
    count = math.ceil(sum(lengths) / min(max(prompt, low), high))
    middles = [end - length / 2 for end, length in zip(itertools.accumulate(lengths), lengths, strict=True)]
    by_chunk = itertools.groupby(range(len(lengths)), lambda i: int(middles[i] * count / sum(lengths)))
    chunks = [list(chunk) for _, chunk in by_chunk]
    queries = [sum(lengths[i] for i in chunk) for chunk in chunks]
    return [
        Chunk(number, chunk, prompt + own, own, is_viewed=place == 0 and prompt >= VIEWED_PROMPT)
        for place, (chunk, own) in enumerate(zip(chunks, queries, strict=True))
    ]


def attention_slots(families: Sequence[Sizes]) -> int:
    """Return the number of slots that attention holds for these prompts and their completions, with padding.

    A slot is a query with its output and a key with its value; where their numbers differ, as copies of a prompt's keys
    stand beside few queries, half a slot for each.
    """
    chunks = [chunk for number, sizes in enumerate(families) for chunk in chunks_of(number, sizes)]
    whole = [
        length for prompt, lengths in families
        for length in ([prompt] if is_shared((prompt, lengths)) else [prompt + own for own in lengths])
    ]  # fmt: skip
    copied = [(chunk.width, chunk.queries) for chunk in chunks if not chunk.is_viewed]
    viewed = sum(chunk.queries for chunk in chunks if chunk.is_viewed)
    return viewed + -(-(padded_size([(length, length) for length in whole]) + padded_size(copied)) // 2)


def padded_size(shapes: Sequence[tuple[int, int]]) -> int:
    """Keys and queries of rows that have so many each, padded as `like_lengths` puts them together."""
    parts = [[shapes[i] for i in part] for part in like_lengths([keys for keys, _ in shapes])]
    return sum(len(part) * (part[0][0] + max(queries for _, queries in part)) for part in parts)


def filled_batches(sizes: Sequence[int], budget: int, slots: Callable[[Sequence[int]], int]) -> list[list[int]]:
    """Return indices of items in batches that hold at most `budget` slots, those of like sizes together.

    slots: what attention holds of several items at once. An item that alone holds more than the budget goes alone.
    """
    order = sorted(range(len(sizes)), key=lambda i: (-sizes[i], i))
    batches: list[list[int]] = []
    for index in order:
        if not batches or slots([*batches[-1], index]) > budget:
            batches.append([])
        batches[-1].append(index)
    return batches


def batches_within(items: Sequence[Sequence[Sizes]], budget: int) -> list[list[int]]:
    """Return indices of items in batches whose attention holds at most `budget` slots, see `filled_batches`."""

    def slots(chosen: Sequence[int]) -> int:
        return attention_slots([sizes for index in chosen for sizes in items[index]])

    return filled_batches([attention_slots(sizes) for sizes in items], budget, slots)


def like_lengths(lengths: Sequence[int]) -> list[list[int]]:
    """The indices of rows, the longest first, a new part where one is much shorter than its part's first."""
    parts: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if not parts or (lengths[index] < LIKE * lengths[parts[-1][0]] and len(parts[-1]) >= FEWEST):
            parts.append([])
        parts[-1].append(index)
    return parts


def forward_flat(model: nn.Module, batch: Row, **options: Any) -> Any:
    """A transformers model's forward pass on a flat batch."""
    return model(input_ids=batch.tokens, position_ids=batch.positions, layout=batch.layout, use_cache=False, **options)
