"""A guessing game of two turns over the letters: a question whose worth shows only in the next turn's reward.

The secret is "a" or "b". If the first turn is "c", the answer is the secret; otherwise it is "d". The second turn wins
1 if it is the secret. A turn has at most two tokens, so all games can be enumerated.
"""

import itertools
import random
from typing import Any

import torch
from torch import Tensor

from tests.learner.worlds.letters import LETTERS, log_prob

MAX_TURN = 2
SECRETS = ("a", "b")
ENVIRONMENT = {"name": "python", "make": "tests.learner.worlds.guessing:GuessingGame"}
# Every turn of at most two tokens: finished, or cut off there.
FINISHED = [[0], *([letter, 0] for letter in range(1, len(LETTERS)))]
TURNS = [*FINISHED, *(list(pair) for pair in itertools.product(range(1, len(LETTERS)), repeat=2))]


class GuessingGame:
    """The game in Gymnasium's interface."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        self.secret, self.turn = random.Random(seed).choice(SECRETS), 0
        return "a", {}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        self.turn += 1
        if self.turn == 2:
            return "", float(action == self.secret), True, False, {}
        return (self.secret if action == "c" else "d"), 0.0, False, False, {}


def turn_log_probs(model: Any, context: list[int]) -> Tensor:
    """Return the log-probability of every turn after these tokens, [21]."""
    with torch.no_grad():
        return torch.stack([log_prob(model, context, turn) for turn in TURNS])


def second_turns(first: list[int]) -> list[tuple[float, list[int], Tensor]]:
    """Return (probability, answer's tokens, expected reward of every second turn) for a finished first turn."""
    asked = first == [LETTERS.index("c"), 0]
    cases = []
    for answer in SECRETS if asked else ("d",):
        wins = [float(turn[-1] == 0 and turn[:-1] == [LETTERS.index(secret)]) for turn in TURNS for secret in SECRETS]
        by_secret = torch.tensor(wins, dtype=torch.float64).view(len(TURNS), 2)
        reward = by_secret[:, SECRETS.index(answer)] if asked else by_secret.mean(1)
        cases.append((0.5 if asked else 1.0, [LETTERS.index(answer)], reward))
    return cases


def objective(policy: Any, reference: Any, beta: float) -> float:
    """Return E[r] − β·KL over whole games, by enumeration."""
    first, first_ref = turn_log_probs(policy, [1]), turn_log_probs(reference, [1])
    total = 0.0
    for turn, log_p, log_ref in zip(TURNS, first, first_ref, strict=True):
        value = -beta * float(log_p - log_ref)
        for chance, answer, reward in second_turns(turn) if turn[-1] == 0 else ():
            context = [1, *turn, *answer]
            second, second_ref = turn_log_probs(policy, context), turn_log_probs(reference, context)
            value += chance * float((second.exp() * (reward - beta * (second - second_ref))).sum())
        total += float(log_p.exp()) * value
    return total


def best_objectives(reference: Any, beta: float) -> tuple[float, float]:
    """Return the best objective of all policies, and of those whose first turn is the reference's.

    By backward induction: a turn's value is β·log Σ π_ref·exp(q/β). The first turn earns nothing itself, so a learner
    that rewards each turn by its own reward keeps the reference's first turn.
    """
    first_ref = turn_log_probs(reference, [1])
    values = []
    for turn in TURNS:
        value = 0.0
        for chance, answer, reward in second_turns(turn) if turn[-1] == 0 else ():
            second_ref = turn_log_probs(reference, [1, *turn, *answer])
            value += chance * beta * float((second_ref + reward / beta).logsumexp(0))
        values.append(value)
    of_turns = torch.tensor(values, dtype=torch.float64)
    best = beta * float((first_ref + of_turns / beta).logsumexp(0))
    return best, float((first_ref.exp() * of_turns).sum())
