"""Best of n in the enumerable world: job directories, and the exact distribution of the picks."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tests.learner.worlds.letters import completions, ppo_job, reward_of


def best_of_n_job(folder: Path, prompts: tuple[str, ...] = ("a",), **settings: Any) -> Path:
    """Make a job directory for best_of_n, with its policy beside it."""
    return ppo_job(folder, prompts, **settings)


def best_of_n(reference: Tensor, n: int) -> Tensor:
    """Return the log-probability of every completion to be the best of n samples, [85].

    P(best = y) = P(r ≤ r(y))^n − P(r < r(y))^n, with the probabilities of one sample: all rewards differ.
    """
    rewards = torch.tensor([reward_of(completion) for completion in completions()], dtype=torch.float64)
    order = rewards.argsort()
    reached = reference.exp()[order].cumsum(0)
    below = torch.cat([torch.zeros(1, dtype=torch.float64), reached[:-1]])
    return torch.empty_like(reference).scatter(0, order, (reached**n - below**n).log())
