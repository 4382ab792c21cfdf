"""A prompt once with all of its completions: P + ΣC tokens through the model in place of Σ(P + C).

The tokens of a prompt group lie end to end, prompt first, each completion's positions starting again where the prompt
ends. Every layer but attention sees a token once; in attention each completion's tokens see the prompt and their own
earlier tokens, as if they were alone. So the hidden states, and the scores read from them, are those of the separate
sequences. Several groups are laid end to end in the same way, without padding.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from training.learner.flat import FlatLayout, Group
from training.learner.last_layer import Wanted, prefix_mask


@dataclass(frozen=True)
class PromptGroup:
    """Token ids of a prompt (may be empty) and of each of its completions (at least one token each)."""

    prompt: tuple[int, ...]
    completions: tuple[tuple[int, ...], ...]

    @property
    def tokens(self) -> int:
        """What a packed pass computes: P + ΣC."""
        return len(self.prompt) + sum(map(len, self.completions))


class PackedBatch(NamedTuple):
    """Prompt groups laid end to end, T tokens with N completions in all."""

    tokens: Tensor  # [1, T]
    positions: Tensor  # [1, T], from 0 in each prompt, going on from the prompt's end in each completion
    layout: FlatLayout
    ends: Wanted  # each completion's last token, in the order of groups and their completions


def pack(groups: Sequence[PromptGroup], device: torch.device | str = "cpu") -> PackedBatch:
    """Lays prompt groups end to end. Raises ValueError on an empty completion: it has no token to read a score at."""
    tokens: list[int] = []
    positions: list[int] = []
    sequences: list[list[int]] = []  # of each completion, where its tokens and its prompt's lie
    for group in groups:
        prompt = range(len(tokens), len(tokens) + len(group.prompt))
        tokens.extend(group.prompt)
        positions.extend(range(len(prompt)))
        for completion in group.completions:
            if not completion:
                raise ValueError("an empty completion cannot be scored: it needs at least its end token")
            sequences.append([*prompt, *range(len(tokens), len(tokens) + len(completion))])
            tokens.extend(completion)
            positions.extend(range(len(prompt), len(prompt) + len(completion)))
    rows, lengths = _as_rows(sequences)
    return PackedBatch(
        tokens=torch.tensor([tokens], device=device),
        positions=torch.tensor([positions], device=device),
        layout=_layout(rows, lengths, len(tokens), device),
        ends=_ends(rows, lengths, device),
    )


def _as_rows(sequences: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """[N, width], shorter ones ending in copies of their last; and the lengths [N]."""
    width = max(map(len, sequences))
    rows = [[*sequence, *[sequence[-1]] * (width - len(sequence))] for sequence in sequences]
    return torch.tensor(rows), torch.tensor([len(sequence) for sequence in sequences])


def _layout(rows: Tensor, lengths: Tensor, token_count: int, device: torch.device | str) -> FlatLayout:
    """Causal attention in each sequence. A prompt's output is taken from the last completion; all of them agree."""
    real = torch.arange(rows.shape[1]) < lengths[:, None]
    slots = torch.zeros(token_count, dtype=torch.int64)
    slots[rows[real]] = torch.arange(rows.numel()).view_as(rows)[real]
    rows = rows.to(device)
    return FlatLayout((Group(rows, rows),), slots.to(device))


def _ends(rows: Tensor, lengths: Tensor, device: torch.device | str) -> Wanted:
    """The last token of each sequence, which sees all of it."""
    numbers = torch.arange(len(rows), device=device)
    mask = prefix_mask(lengths[:, None], rows.shape[1])
    layout = FlatLayout((Group(numbers[:, None], rows.to(device), mask.to(device)),), numbers)
    return Wanted(rows[:, -1].to(device), layout)
