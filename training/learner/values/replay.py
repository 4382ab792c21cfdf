"""Replay buffer: completions with rewards, by any author, from which batches are drawn repeatedly."""

import itertools
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from training.learner.models.packing import Episodes, Turn, indices_by_prompt
from training.learner.text.messages import shuffled

GROUP = 8  # completions of one prompt that are drawn together, so that the prompt is computed once


class ReplayBuffer(NamedTuple):
    """N different completions with their rewards. Of a dialogue only the policy's tokens are actions.

    The last token of a truncated dialogue is no part of any loss: what it was worth is not known.
    """

    episodes: Episodes
    rewards: Tensor  # [N] float32; of truncated dialogues not used
    counts: Tensor  # [N] float32, how often the completion was logged with this reward; its weight in every loss

    def lengths(self) -> Tensor:
        """Return the number of the policy's tokens of each completion, [N]."""
        return torch.tensor(self.episodes.policy_lengths(), dtype=torch.int64)

    def truncated(self) -> Tensor:
        """Return whether each completion is a truncated dialogue, [N] bool."""
        return torch.tensor(self.episodes.truncated(), dtype=torch.bool)

    def is_learned(self, indices: Sequence[int]) -> Tensor:
        """Return whether each of the policy's tokens of these completions is a part of the losses, [C] bool."""
        chosen = self.episodes.select(indices)
        lengths = torch.tensor(chosen.policy_lengths(), dtype=torch.int64)
        learned = torch.ones(int(lengths.sum()), dtype=torch.bool)
        learned[lengths.cumsum(0)[torch.tensor(chosen.truncated(), dtype=torch.bool)] - 1] = False
        return learned

    def tokens(self, indices: Sequence[int]) -> int:
        """Return the number of the policy's tokens of these completions that are a part of the losses."""
        return int(self.is_learned(indices).sum())

    def token_counts(self, indices: Sequence[int]) -> Tensor:
        """Return the counts [C] of the tokens of these completions, divided by their mean over the whole buffer.

        0 for a token that is no part of the losses.
        """
        chosen, lengths = list(indices), self.lengths()
        learned = lengths - self.truncated().long()
        mean = (self.counts * learned).sum() / learned.sum()
        return (self.counts[chosen] / mean).repeat_interleave(lengths[chosen]) * self.is_learned(chosen)


def merge_equal(episodes: Episodes, rewards: Tensor) -> ReplayBuffer:
    """Return a buffer in which equal completions of a prompt with equal rewards [N] are one, with their number.

    A truncated dialogue differs from one that ended with the same tokens.
    """
    turns: Sequence[Sequence[Turn]] = episodes.turns or [()] * len(episodes.prompts)
    counts: Counter[tuple[tuple[int, ...], tuple[int, ...], tuple[Turn, ...], bool, float]] = Counter(
        (tuple(prompt), tuple(completion), tuple(spans), is_truncated, reward)
        for prompt, completion, spans, is_truncated, reward in zip(
            episodes.prompts, episodes.completions, turns, episodes.truncated(), rewards.tolist(), strict=True
        )
    )
    distinct = Episodes(
        [prompt for prompt, *_ in counts],
        [completion for _, completion, *_ in counts],
        None if episodes.turns is None else [spans for _, _, spans, *_ in counts],
        None if episodes.unanswered is None else [[] if is_truncated else None for *_, is_truncated, _ in counts],
    )
    return ReplayBuffer(
        distinct,
        torch.tensor([reward for *_, reward in counts], dtype=torch.float32),
        torch.tensor(list(counts.values()), dtype=torch.float32),
    )


def plan_batches(buffer: ReplayBuffer, size: int, epochs: int, seed: int, first: int = 0) -> list[list[int]]:
    """Return the batches of `epochs` passes, each with at most `size` completions; every pass is shuffled again.

    Completions of one prompt come in groups of up to GROUP, in another division in every pass. first: number of the
    first pass, so that two plans of one seed differ.
    """
    plan: list[list[int]] = []
    for epoch in range(first, first + epochs):
        groups: list[list[int]] = []
        for number, indices in enumerate(indices_by_prompt(buffer.episodes).values()):
            order = [indices[i] for i in shuffled(len(indices), seed, (epoch << 32) + number)]
            width = min(GROUP, size)
            groups += [order[start : start + width] for start in range(0, len(order), width)]
        drawn = list(itertools.chain.from_iterable(groups[i] for i in shuffled(len(groups), seed, epoch)))
        plan += [drawn[start : start + size] for start in range(0, len(drawn), size)]
    return plan
