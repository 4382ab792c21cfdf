"""Episodes, a prompt and the completion that followed it each, as flat batches: a prompt that several share once."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from training.learner.models.packed_attention import FlatLayout, batches_within, causal_layout


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
    rows: list[int] = []  # of each episode, where its tokens lie
    owned: list[bool] = []  # of these: a prompt's output is its first episode's; all of them agree
    decisions: list[int] = []
    last: list[int] = []
    begins: dict[tuple[int, ...], int] = {}
    for prompt, completion in zip(*episodes, strict=True):
        is_new = tuple(prompt) not in begins
        start = begins.setdefault(tuple(prompt), len(tokens))
        if is_new:
            tokens += prompt
            positions += range(len(prompt))
        own = range(len(tokens), len(tokens) + len(completion))
        tokens += completion
        positions += range(len(prompt), len(prompt) + len(completion))
        rows += [*range(start, start + len(prompt)), *own]
        owned += [is_new] * len(prompt) + [True] * len(completion)
        decisions += [start + len(prompt) - 1, *own[:-1]]
        last.append(own[-1])
    decided = [token for completion in episodes.completions for token in completion]
    return EpisodeBatch(
        torch.tensor([tokens], device=device),
        torch.tensor([positions], device=device),
        causal_layout(torch.tensor(rows), torch.tensor(episodes.lengths()), torch.tensor(owned), device),
        torch.tensor(decisions, device=device),
        torch.tensor(decided, device=device),
        torch.tensor(last, device=device),
    )


def within_budget(episodes: Episodes, budget: int) -> list[list[int]]:
    """Indices of episodes in batches that hold at most `budget` slots in attention, those of a prompt together.

    A longer episode goes alone; like lengths come together.
    """
    sharing: dict[tuple[int, ...], list[int]] = {}
    for index, prompt in enumerate(episodes.prompts):
        sharing.setdefault(tuple(prompt), []).append(index)
    lengths = episodes.lengths()
    parts: list[list[int]] = []
    for indices in sharing.values():
        rows = [[lengths[index]] for index in indices]
        parts += [sorted(indices[place] for place in batch) for batch in batches_within(rows, budget)]
    batches = batches_within([[lengths[index] for index in part] for part in parts], budget)
    return [[index for part in batch for index in parts[part]] for batch in batches]


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
