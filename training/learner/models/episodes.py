"""Episodes, a prompt and the completion that followed it each, as flat batches: a prompt that several share once."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from training.learner.models.packed_attention import (
    Family,
    FlatLayout,
    Sizes,
    apart,
    attention_slots,
    batches_within,
    family_layout,
    filled_batches,
)


class Episodes(NamedTuple):
    """Prompts with the completions that follow them, as token ids; both hold at least one token."""

    prompts: Sequence[Sequence[int]]
    completions: Sequence[Sequence[int]]

    def sequences(self) -> list[list[int]]:
        return [[*prompt, *completion] for prompt, completion in zip(self.prompts, self.completions, strict=True)]

    def lengths(self) -> list[int]:
        """Tokens of each, prompt and completion."""
        return [len(prompt) + len(completion) for prompt, completion in zip(*self, strict=True)]

    def select(self, indices: Sequence[int]) -> "Episodes":
        return Episodes([self.prompts[i] for i in indices], [self.completions[i] for i in indices])


class EpisodeBatch(NamedTuple):
    """Episodes laid end to end, T tokens, each distinct prompt once; C completion tokens in the episodes' order."""

    tokens: Tensor  # [1, T]
    positions: Tensor  # [1, T], from 0 in each prompt, going on from its end in each completion
    layout: FlatLayout
    decisions: Tensor  # [C], where in the row each completion token was decided: at the token before it
    decided: Tensor  # [C], the completion tokens
    last: Tensor  # [N], where each episode's last token is


def lay_out(episodes: Episodes, device: torch.device | str = "cpu") -> EpisodeBatch:
    """The episodes in one row, in which each completion sees its prompt and its own earlier tokens only."""
    tokens: list[int] = []
    positions: list[int] = []
    families: list[Family] = []
    decisions: dict[int, list[int]] = {}  # by episode
    last: dict[int, int] = {}
    for prompt, indices in sharing(episodes).items():
        start = len(tokens)
        tokens += prompt
        positions += range(len(prompt))
        families.append(Family(range(start, len(tokens)), []))
        for index in indices:
            completion = episodes.completions[index]
            own = range(len(tokens), len(tokens) + len(completion))
            tokens += completion
            positions += range(len(prompt), len(prompt) + len(completion))
            families[-1].completions.append(own)
            decisions[index], last[index] = [start + len(prompt) - 1, *own[:-1]], own[-1]
    numbers = range(len(episodes.prompts))
    decided = [token for completion in episodes.completions for token in completion]
    return EpisodeBatch(
        torch.tensor([tokens], device=device),
        torch.tensor([positions], device=device),
        family_layout(families, device),
        torch.tensor([place for index in numbers for place in decisions[index]], device=device),
        torch.tensor(decided, device=device),
        torch.tensor([last[index] for index in numbers], device=device),
    )


def sharing(episodes: Episodes) -> dict[tuple[int, ...], list[int]]:
    """By prompt, the indices of the episodes that have it."""
    indices: dict[tuple[int, ...], list[int]] = {}
    for index, prompt in enumerate(episodes.prompts):
        indices.setdefault(tuple(prompt), []).append(index)
    return indices


def sizes_of(episodes: Episodes, shares: bool = True) -> list[Sizes]:
    """Tokens of each distinct prompt and of its completions; shares: whether passes compute a prompt once."""
    sizes: list[Sizes] = [
        (len(prompt), [len(episodes.completions[index]) for index in indices])
        for prompt, indices in sharing(episodes).items()
    ]
    return [one if shares else apart(one) for one in sizes]


def within_budget(episodes: Episodes, budget: int, shares: bool = True) -> list[list[int]]:
    """Indices of episodes in batches that hold at most `budget` slots in attention, those of a prompt together.

    A longer episode goes alone; like lengths come together. shares: whether passes compute a shared prompt once.
    """
    parts: list[list[int]] = []
    for indices in sharing(episodes).values():

        def slots(chosen: Sequence[int], indices: list[int] = indices) -> int:
            return attention_slots(sizes_of(episodes.select([indices[place] for place in chosen]), shares))

        lengths = [len(episodes.completions[index]) for index in indices]
        parts += [[indices[place] for place in batch] for batch in filled_batches(lengths, budget, slots)]
    items = [sizes_of(episodes.select(part), shares) for part in parts]
    return [[index for part in batch for index in parts[part]] for batch in batches_within(items, budget)]


def by_episode(
    score: Callable[[Episodes], Sequence[Tensor]],
    episodes: Episodes,
    parts: Sequence[Sequence[int]],
    known: Sequence[Tensor] | None = None,
) -> list[list[Tensor]]:
    """What `score` gives of completion tokens, part by part: a list [N] for each of its tensors [C], on the CPU.

    known: what it would give of the first part, if it need not be asked.
    """
    columns: list[dict[int, Tensor]] = []
    for number, indices in enumerate(parts):
        chosen = episodes.select(indices)
        sizes = [len(completion) for completion in chosen.completions]
        given = known if known is not None and number == 0 else score(chosen)
        found = [values.cpu().split(sizes) for values in given]
        columns = columns or [{} for _ in found]
        for column, rows in zip(columns, found, strict=True):
            column.update(zip(indices, rows, strict=True))
    return [[column[i] for i in range(len(column))] for column in columns]
