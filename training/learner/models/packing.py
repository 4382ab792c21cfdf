"""Packing: prompts and completions laid end to end in one row, each shared prompt once.

A prompt of P tokens with completions of C tokens each takes P + ΣC tokens instead of Σ(P + C). The prompt comes first;
the positions of every completion continue from the end of the prompt. Layers other than attention process each token
once. In attention, a completion sees its prompt and its own earlier tokens only (`packed_attention`), so its hidden
states are those of the separate sequence.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from training.learner.models.packed_attention import GroupSizes, GroupSpans, Layout, PackedLayout, unshared
from training.learner.models.packed_layouts import causal_layout, shared_prompt_layout
from training.learner.models.slot_budget import attention_slots, batches_within, fill_batches
from training.learner.text.messages import TurnSpan


@dataclass(frozen=True)
class PromptGroup:
    """Token ids of a prompt (may be empty) and of its completions (at least one token each)."""

    prompt: tuple[int, ...]
    completions: tuple[tuple[int, ...], ...]
    dialogues: tuple[tuple[TurnSpan, ...], ...] = ()  # spans of each completion's turns; (): all have one turn

    @property
    def tokens(self) -> int:
        """Number of tokens of a packed pass, P + ΣC."""
        return len(self.prompt) + sum(map(len, self.completions))

    @property
    def sizes(self) -> GroupSizes:
        return len(self.prompt), list(map(len, self.completions))

    @property
    def spans(self) -> tuple[tuple[TurnSpan, ...], ...]:
        """Spans of the policy's turns of each completion."""
        return self.dialogues or tuple(((0, len(completion)),) for completion in self.completions)


def as_group(prompt: Sequence[int], completions: Sequence[tuple[Sequence[int], Sequence[TurnSpan]]]) -> PromptGroup:
    """Return the group of a prompt and completions, each as tokens with the spans of its turns."""
    dialogues = tuple(tuple(spans) for _, spans in completions)
    has_dialogue = any(len(spans) > 1 for spans in dialogues)
    return PromptGroup(
        tuple(prompt), tuple(tuple(tokens) for tokens, _ in completions), dialogues if has_dialogue else ()
    )


class Turn(NamedTuple):
    """A turn of the policy in an episode: the tokens completion[start:end]."""

    start: int
    end: int
    reward: float = 0.0  # by the environment


class Episodes(NamedTuple):
    """Prompts and the completion of each, as token ids; both have at least one token.

    In an episode of several turns, the completion holds the policy's turns and the answers in between, and `turns`
    marks which tokens are the policy's. Outputs per completion token are for the policy's tokens only.
    """

    prompts: Sequence[Sequence[int]]
    completions: Sequence[Sequence[int]]
    turns: Sequence[Sequence[Turn]] | None = None  # None: each completion is one turn
    # The tokens that the policy would have read after the last turn of a truncated episode, [] if they are not known or
    # no model can read them; None for an episode that ended.
    unanswered: Sequence[Sequence[int] | None] | None = None  # None: all episodes ended

    def policy_indices(self) -> list[Sequence[int]]:
        """Return the indices of each completion's tokens that the policy wrote."""
        if self.turns is None:
            return [range(len(completion)) for completion in self.completions]
        return [[index for turn in turns for index in range(turn.start, turn.end)] for turns in self.turns]

    def policy_lengths(self) -> list[int]:
        """Return the number of tokens of each episode that the policy wrote."""
        return [len(indices) for indices in self.policy_indices()]

    def sequences(self) -> list[list[int]]:
        return [[*prompt, *completion] for prompt, completion in zip(self.prompts, self.completions, strict=True)]

    def lengths(self) -> list[int]:
        """Return the number of tokens of each episode, prompt and completion."""
        return [
            len(prompt) + len(completion) for prompt, completion in zip(self.prompts, self.completions, strict=True)
        ]

    def select(self, indices: Sequence[int]) -> "Episodes":
        turns = None if self.turns is None else [self.turns[i] for i in indices]
        unanswered = None if self.unanswered is None else [self.unanswered[i] for i in indices]
        return Episodes([self.prompts[i] for i in indices], [self.completions[i] for i in indices], turns, unanswered)

    def truncated(self) -> list[bool]:
        """Return whether each episode was truncated: it would have gone on without a limit outside of it."""
        if self.unanswered is None:
            return [False] * len(self.prompts)
        return [tokens is not None for tokens in self.unanswered]


def as_episodes(
    prompts: Sequence[Sequence[int]],
    completions: Sequence[Sequence[int]],
    spans: Sequence[Sequence[TurnSpan]],
    truncated: Sequence[bool] = (),
) -> Episodes:
    """Return episodes without rewards by an environment.

    spans: of the policy's turns of each completion. truncated: whether each was truncated, before an answer that is not
    known; (): all ended.
    """
    unanswered: list[list[int] | None] | None = None
    if any(truncated):
        unanswered = [[] if is_truncated else None for is_truncated in truncated]
    if all(len(of_one) == 1 for of_one in spans):
        return Episodes(prompts, completions, None, unanswered)
    return Episodes(prompts, completions, [[Turn(*span) for span in of_one] for of_one in spans], unanswered)


class PackedSequences(NamedTuple):
    """N sequences laid end to end, T tokens."""

    tokens: Tensor  # [1, T]
    positions: Tensor  # [1, T], from 0 in each sequence
    layout: Layout
    starts: Tensor  # [N], index of each sequence's first token in the row
    lengths: Tensor  # [N]


class PackedGroups(NamedTuple):
    """Prompt groups laid end to end: T tokens with N completions."""

    tokens: Tensor  # [1, T]
    positions: Tensor  # [1, T], from 0 in each prompt; each completion continues from the end of its prompt
    layout: PackedLayout
    last: Tensor  # [N], index of each completion's last token in the row, in the order of groups and completions


class PackedEpisodes(NamedTuple):
    """Episodes laid end to end: T tokens, of which the policy wrote C, in the order of the episodes."""

    tokens: Tensor  # [1, T]
    positions: Tensor  # [1, T]
    layout: PackedLayout
    decisions: Tensor  # [C], index of the token before each written token: its state gives the next-token logits
    decided: Tensor  # [C], the written tokens
    last: Tensor  # [N], index of each episode's last token


def pack_sequences(sequences: Sequence[Sequence[int]], device: torch.device | str = "cpu") -> PackedSequences:
    """Lay sequences end to end; each attends to its own earlier tokens only. None may be empty."""
    lengths = torch.tensor([len(sequence) for sequence in sequences])
    tokens = torch.tensor([token for sequence in sequences for token in sequence])
    starts = lengths.cumsum(0) - lengths
    positions = torch.arange(len(tokens)) - starts.repeat_interleave(lengths)
    layout = causal_layout(torch.arange(len(tokens)), lengths, torch.ones(len(tokens), dtype=torch.bool), device)
    tokens, positions = tokens[None].to(device), positions[None].to(device)
    return PackedSequences(tokens, positions, layout, starts.to(device), lengths.to(device))


def pack_groups(groups: Sequence[PromptGroup], device: torch.device | str = "cpu") -> PackedGroups:
    """Lay prompt groups end to end. Raises ValueError on an empty completion."""
    tokens: list[int] = []
    positions: list[int] = []
    spans: list[GroupSpans] = []
    for group in groups:
        start = len(group.prompt)
        prompt = range(len(tokens), len(tokens) + start)
        tokens += group.prompt
        positions += range(start)
        completions: list[range] = []
        for completion in group.completions:
            if not completion:
                raise ValueError("an empty completion has no hidden state: add at least its EOS token")
            completions.append(range(len(tokens), len(tokens) + len(completion)))
            tokens += completion
            positions += range(start, start + len(completion))
        spans.append(GroupSpans(prompt, completions))
    return PackedGroups(
        tokens=torch.tensor([tokens], device=device),
        positions=torch.tensor([positions], device=device),
        layout=shared_prompt_layout(spans, device),
        last=torch.tensor([span[-1] for group in spans for span in group.completions], device=device),
    )


def pack_episodes(episodes: Episodes, device: torch.device | str = "cpu") -> PackedEpisodes:
    """Lay episodes end to end; episodes with equal prompts share one copy of it."""
    by_prompt, written = indices_by_prompt(episodes), episodes.policy_indices()
    groups = [
        PromptGroup(prompt, tuple(tuple(episodes.completions[index]) for index in indices))
        for prompt, indices in by_prompt.items()
    ]
    batch = pack_groups(groups, device)
    decisions: dict[int, list[int]] = {}  # by episode
    last: dict[int, int] = {}
    for indices, spans in zip(by_prompt.values(), batch.layout.spans, strict=True):
        for index, span in zip(indices, spans.completions, strict=True):
            before = [spans.prompt[-1], *span[:-1]]
            decisions[index] = [before[place] for place in written[index]]
            last[index] = span[-1]
    order = range(len(episodes.prompts))
    return PackedEpisodes(
        tokens=batch.tokens,
        positions=batch.positions,
        layout=batch.layout,
        decisions=torch.tensor([index for episode in order for index in decisions[episode]], device=device),
        decided=torch.tensor([episodes.completions[i][place] for i in order for place in written[i]], device=device),
        last=torch.tensor([last[episode] for episode in order], device=device),
    )


def indices_by_prompt(episodes: Episodes) -> dict[tuple[int, ...], list[int]]:
    """Return the indices of the episodes of each distinct prompt, in the order of its first episode."""
    indices: dict[tuple[int, ...], list[int]] = {}
    for index, prompt in enumerate(episodes.prompts):
        indices.setdefault(tuple(prompt), []).append(index)
    return indices


def sizes_of(episodes: Episodes, shares: bool = True) -> list[GroupSizes]:
    """Return the sizes of the prompt groups. shares: whether passes compute a shared prompt once."""
    sizes: list[GroupSizes] = [
        (len(prompt), [len(episodes.completions[index]) for index in indices])
        for prompt, indices in indices_by_prompt(episodes).items()
    ]
    return sizes if shares else [unshared(group) for group in sizes]


def within_budget(episodes: Episodes, budget: int, shares: bool = True) -> list[list[int]]:
    """Return indices of episodes in batches of at most `budget` attention slots; equal prompts stay together.

    An episode that needs more goes alone. Batches hold similar lengths. shares: whether passes compute a shared prompt
    once.
    """
    parts: list[list[int]] = []  # episodes of one prompt, divided where they exceed the budget
    for indices in indices_by_prompt(episodes).values():

        def slots(chosen: Sequence[int], indices: list[int] = indices) -> int:
            return attention_slots(sizes_of(episodes.select([indices[i] for i in chosen]), shares))

        lengths = [len(episodes.completions[index]) for index in indices]
        parts += [[indices[i] for i in batch] for batch in fill_batches(lengths, budget, slots)]
    sizes = [sizes_of(episodes.select(part), shares) for part in parts]
    return [[index for part in batch for index in parts[part]] for batch in batches_within(sizes, budget)]


def by_episode(
    score: Callable[[Episodes], Sequence[Tensor]],
    episodes: Episodes,
    parts: Sequence[Sequence[int]],
    first: Sequence[Tensor] | None = None,
) -> list[list[Tensor]]:
    """Call `score` on each part and return, for each of its tensors [C], a list of N tensors on the CPU, by episode.

    first: the result for the first part, if it is already known.
    """
    columns: list[dict[int, Tensor]] = []
    for number, indices in enumerate(parts):
        part = episodes.select(indices)
        sizes = part.policy_lengths()
        scores = first if first is not None and number == 0 else score(part)
        columns = columns or [{} for _ in scores]
        for column, values in zip(columns, scores, strict=True):
            column.update(zip(indices, values.cpu().split(sizes), strict=True))
    return [[column[i] for i in range(len(column))] for column in columns]
