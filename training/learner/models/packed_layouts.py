"""Layouts of packed rows: causal attention per sequence, and prompts shared by several completions.

Rows of similar length are padded together, since attention is computed for rectangular groups of rows.
"""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from training.learner.models.packed_attention import AttentionGroup, GroupSizes, GroupSpans, PackedLayout

# Rows are padded to one length only if the shortest has at least this share of the longest. Parts with fewer rows than
# MIN_ROWS take shorter rows too.
MIN_LENGTH_RATIO, MIN_ROWS = 0.75, 4
CHUNK_TOKENS = 64, 1024  # smallest and largest limit of completion tokens that attend to their prompt in one row
MIN_VIEWED_PROMPT = 256  # prompt tokens from which the first chunk reads keys in place instead of a padded copy


def causal_layout(rows: Tensor, lengths: Tensor, owned: Tensor, device: torch.device | str) -> PackedLayout:
    """Return causal attention in each of N rows; rows of similar length are padded together.

    rows [S] are indices into the packed row, those of the N rows end to end; lengths [N] are the rows' lengths. If
    several rows contain a token, its output is taken from the row that owns it: owned [S] is true once per token.
    """
    starts = lengths.cumsum(0) - lengths
    slots = torch.empty(int(rows.max()) + 1, dtype=torch.int64)
    groups, before = [], 0
    for chosen in map(torch.tensor, similar_lengths(lengths.tolist())):
        width = int(lengths[chosen[0]])
        columns = torch.arange(width)
        reads = starts[chosen, None] + columns.minimum(lengths[chosen, None] - 1)
        is_output = owned[reads] & (columns < lengths[chosen, None])
        indices = rows[reads]
        slots[indices[is_output]] = before + is_output.flatten().nonzero()[:, 0]
        before += indices.numel()
        groups.append(AttentionGroup(indices.to(device), indices.to(device)))
    return PackedLayout(tuple(groups), slots.to(device))


def separate_sequences(layout: PackedLayout) -> PackedLayout:
    """Return a layout with one row per sequence, prompt included, for models that cannot share a prompt."""
    if not layout.spans:
        return layout
    rows: list[int] = []
    lengths: list[int] = []
    owned: list[bool] = []
    for group in layout.spans:
        for number, completion in enumerate(group.completions):
            rows += [*group.prompt, *completion]
            lengths.append(len(group.prompt) + len(completion))
            # The output of a shared prompt is taken from the row of its first completion.
            owned += [number == 0] * len(group.prompt) + [True] * len(completion)
    return causal_layout(torch.tensor(rows), torch.tensor(lengths), torch.tensor(owned), layout.slots.device)


class Chunk(NamedTuple):
    """Completions of one prompt whose queries are computed in one row, next to the keys of prompt and completions."""

    group: int
    completions: list[int]
    width: int  # keys: tokens of the prompt and of the completions
    queries: int  # tokens of the completions
    is_viewed: bool  # whether its keys are one slice of the packed row, read in place


def shared_prompt_layout(spans: Sequence[GroupSpans], device: torch.device | str) -> PackedLayout:
    """Return attention in which each completion sees its prompt and its own earlier tokens only.

    A prompt with several completions is a row of its own, so that its queries are computed once. Its completions are
    divided into chunks; the row of a chunk has the keys of the prompt and of the chunk, with a mask.
    """
    sizes = [group.sizes for group in spans]
    whole: list[list[int]] = []  # causal rows: shared prompts, and sequences that share nothing
    for group, size in zip(spans, sizes, strict=True):
        if is_shared(size):
            whole.append(list(group.prompt))
        else:
            whole += [[*group.prompt, *completion] for completion in group.completions]
    rows = torch.tensor([index for row in whole for index in row])
    lengths = torch.tensor([len(row) for row in whole])
    layout = causal_layout(rows, lengths, torch.ones(len(rows), dtype=torch.bool), "cpu")
    slots = torch.empty(max(group.completions[-1].stop for group in spans), dtype=torch.int64)
    slots[rows] = layout.slots[rows]
    groups = [group.to(device) for group in layout.groups]
    before = sum(group.slots for group in groups)
    chunks = [chunk for number, size in enumerate(sizes) for chunk in chunks_of(number, size)]
    copied = [chunk for chunk in chunks if not chunk.is_viewed]
    parts = [[copied[i] for i in part] for part in similar_lengths([chunk.width for chunk in copied])]
    parts += [[chunk] for chunk in chunks if chunk.is_viewed]
    for part in parts:
        chunk_rows, is_output = chunk_group(spans, part)
        slots[chunk_rows.query_rows[is_output]] = before + is_output.flatten().nonzero()[:, 0]
        before += chunk_rows.slots
        groups.append(chunk_rows.to(device))
    is_split = any(chunk.is_viewed for chunk in chunks)
    tokens = [prompt + sum(completions) for prompt, completions in sizes] if is_split else []
    return PackedLayout(tuple(groups), slots.to(device), tuple(spans), tuple(tokens))


def chunk_group(spans: Sequence[GroupSpans], chunks: Sequence[Chunk]) -> tuple[AttentionGroup, Tensor]:
    """Return a group on the CPU with one row per chunk, and [N, Q] false where a query's slot is padding."""
    shape = len(chunks), max(chunk.width for chunk in chunks)
    indices, positions = torch.zeros(shape, dtype=torch.int64), torch.zeros(shape, dtype=torch.int64)
    owners = torch.full(shape, -1)  # 0: the prompt; from 1 on its completions; -1: padding
    reads = torch.zeros(len(chunks), max(chunk.queries for chunk in chunks), dtype=torch.int64)
    is_output = torch.zeros(reads.shape, dtype=torch.bool)
    for row, chunk in enumerate(chunks):
        group = spans[chunk.group]
        start = len(group.prompt)
        runs = [group.prompt, *(group.completions[i] for i in chunk.completions)]
        lengths = torch.tensor([len(run) for run in runs])
        keys = torch.cat([torch.arange(run.start, run.stop) for run in runs])
        indices[row], indices[row, : chunk.width] = keys[-1], keys
        owners[row, : chunk.width] = torch.arange(len(runs)).repeat_interleave(lengths)
        positions[row, : chunk.width] = torch.cat(
            [torch.arange(length) + start * (number > 0) for number, length in enumerate(lengths.tolist())]
        )
        reads[row] = (start + torch.arange(reads.shape[1])).clamp(max=chunk.width - 1)
        is_output[row, : chunk.queries] = True
    query_owners, query_positions = owners.gather(1, reads)[:, :, None], positions.gather(1, reads)
    mask = (owners[:, None] == 0) | (owners[:, None] == query_owners)
    mask &= positions[:, None] <= query_positions[:, :, None]
    part = chunks[0].group if chunks[0].is_viewed else None
    group_positions = query_positions, positions
    return AttentionGroup(indices.gather(1, reads), indices, mask[:, None], group_positions, part), is_output


def is_shared(sizes: GroupSizes) -> bool:
    return sizes[0] > 0 and len(sizes[1]) > 1


def chunks_of(number: int, sizes: GroupSizes) -> list[Chunk]:
    """Divide completions that share a prompt into chunks of similar sizes.

    Larger chunks need fewer copies of the prompt's keys and a larger mask. A chunk therefore has at most about as many
    tokens as the prompt, within CHUNK_TOKENS.
    """
    if not is_shared(sizes):
        return []
    prompt, lengths = sizes
    low, high = CHUNK_TOKENS
    count = math.ceil(sum(lengths) / min(max(prompt, low), high))
    middles = [end - length / 2 for end, length in zip(itertools.accumulate(lengths), lengths, strict=True)]
    by_chunk = itertools.groupby(range(len(lengths)), lambda i: int(middles[i] * count / sum(lengths)))
    chunks: list[Chunk] = []
    for _, members in by_chunk:
        completions = list(members)
        queries = sum(lengths[i] for i in completions)
        is_viewed = not chunks and prompt >= MIN_VIEWED_PROMPT
        chunks.append(Chunk(number, completions, prompt + queries, queries, is_viewed))
    return chunks


def similar_lengths(lengths: Sequence[int]) -> list[list[int]]:
    """Return indices of rows in parts of similar length, the longest first."""
    parts: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        is_short = bool(parts) and lengths[index] < MIN_LENGTH_RATIO * lengths[parts[-1][0]]
        if not parts or (is_short and len(parts[-1]) >= MIN_ROWS):
            parts.append([])
        parts[-1].append(index)
    return parts
