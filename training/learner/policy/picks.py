"""Picks: the best of n completions of each prompt, their threshold, and their division into imitation steps."""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from training.learner.models.packing import Episodes
from training.learner.reward_terms import Answer
from training.learner.runtime.config.best_of_n import BestOfNConfig
from training.learner.text.demonstrations import Example
from training.learner.text.messages import shuffled


class Pick(NamedTuple):
    """The best of n completions of a prompt."""

    prompt_id: Any  # of prompts.jsonl; None if it has none
    prompt: list[int]  # tokens
    completion: list[int]  # tokens as sampled, with the EOS token if there is one
    text: str
    reward: float


def best_of_groups(rewards: Tensor, n: int) -> list[int]:
    """Return the indices of the highest rewards [P·n] of groups of n that follow each other; of equals the first."""
    places = rewards.view(-1, n).argmax(1)
    return [group * n + place for group, place in enumerate(places.tolist())]


def picks_of(episodes: Episodes, answers: Sequence[Answer], rewards: Tensor, n: int) -> list[Pick]:
    """Return the pick of every prompt; completions of a prompt follow each other."""
    return [
        Pick(
            answers[i].row.get("prompt_id"),
            list(episodes.prompts[i]),
            list(episodes.completions[i]),
            answers[i].text,
            float(rewards[i]),
        )
        for i in best_of_groups(rewards, n)
    ]


def threshold_of(rewards: Sequence[float], settings: BestOfNConfig) -> float | None:
    """Return the lowest reward that is imitated, of an iteration's picks with these rewards; None without threshold.

    The quantile is one of the rewards; where it falls between two, it is the higher one.
    """
    if settings.threshold == "none":
        return None
    if settings.threshold == "reward":
        return settings.min_reward
    return float(torch.tensor(rewards, dtype=torch.float64).quantile(settings.reward_quantile, interpolation="higher"))


def imitated_picks(picks: Sequence[Pick], settings: BestOfNConfig) -> list[Pick]:
    """Return the picks that reach the threshold."""
    lowest = threshold_of([pick.reward for pick in picks], settings)
    return [pick for pick in picks if lowest is None or pick.reward >= lowest]


def as_example(pick: Pick) -> Example:
    """Return the pick as tokens to imitate: those of the completion, with weight 1."""
    weights = [0.0] * (len(pick.prompt) - 1) + [1.0] * len(pick.completion)
    return Example(pick.prompt + pick.completion, weights)


def imitation_steps(count: int, settings: BestOfNConfig) -> int:
    """Return the number of imitation steps for `count` picks."""
    return settings.epochs * max(round(count / settings.batch_completions), 1)


def plan_imitation(count: int, iteration: int, settings: BestOfNConfig) -> list[list[int]]:
    """Return the indices of the picks of each step: `epochs` shuffled passes, each divided evenly into its steps."""
    parts = imitation_steps(count, settings) // settings.epochs
    plan = []
    for epoch in range(settings.epochs):
        order = shuffled(count, settings.seed, (iteration - 1) * settings.epochs + epoch)
        cuts = [count * part // parts for part in range(parts + 1)]
        plan += [order[low:high] for low, high in itertools.pairwise(cuts)]
    return plan
