"""Completions of the letters that the reference wrote before, for tests of learning from logged data."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.learner.worlds.letters import LETTERS, MAX_LENGTH, PROMPTS, policy_beside, reward_of, write_job
from training.learner.models.loading import load_policy
from training.learner.sampling.sampler import SamplingParams, sample

State = tuple[int, ...]  # tokens of a completion so far, after a prompt


def logged_tokens(policy: Path, prompt: int, count: int, seed: int = 0) -> list[list[int]]:
    """Return completions that the policy writes to a prompt of one letter."""
    model, _ = load_policy(str(policy))
    params = SamplingParams(MAX_LENGTH, frozenset([0]), seed=seed)
    return [completion.tokens for completion in sample(model, [[prompt]] * count, range(count), params, batch=count)]


def row(prompt: int, tokens: Sequence[int], **more: Any) -> dict[str, Any]:
    """Return a row of completions.jsonl without a reward."""
    text = " ".join(LETTERS[token] for token in tokens if token)
    return {"messages": [{"role": "user", "content": LETTERS[prompt]}], "completion": text, **more}


def q_job(folder: Path, rows: Sequence[dict[str, Any]] | None = None, count: int = 40, **settings: Any) -> Path:
    """Make a job directory for q, with its policy beside it. rows: by default `count` samples of every prompt."""
    policy = policy_beside(folder)
    if rows is None:
        prompts = range(1, 1 + len(PROMPTS))
        rows = [row(prompt, tokens) for prompt in prompts for tokens in logged_tokens(policy, prompt, count)]
    return write_job(folder, "completions.jsonl", rows, **settings)


def tree_of(written: Sequence[Sequence[int]]) -> Counter[State]:
    """Return how often every beginning occurs in these completions, whole ones included."""
    return Counter(tuple(tokens[:length]) for tokens in written for length in range(1, 1 + len(tokens)))


def reward_of_state(state: State) -> float | None:
    """Return the reward of a whole completion; None for a beginning that goes on."""
    return reward_of(state) if state[-1] == 0 or len(state) == MAX_LENGTH else None
