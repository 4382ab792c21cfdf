"""The tokens that a reward model reads of an answer: messages and text, by its own tokenizer."""

import json
from collections.abc import Callable
from typing import Any

from training.learner.models.reward_model import MaxLengths, RewardModel
from training.learner.reward_terms import Answer
from training.learner.runtime.config import PpoConfig, Sampling
from training.learner.text.messages import encode_prompt, encode_turns

Scoring = tuple[RewardModel, Any]  # and its tokenizer


def max_lengths_of(model: RewardModel, settings: PpoConfig | Sampling) -> MaxLengths:
    """Return the lengths that the reward model reads: those of its training, by default those of the program."""
    return model.max_lengths or MaxLengths(settings.max_prompt_tokens, settings.max_completion_tokens)


def token_reader(tokenizer: Any, longest: MaxLengths) -> Callable[[Answer], list[int]]:
    """Return the function from an answer to the tokens of its prompt and its text, or all turns of a dialogue."""
    prompts: dict[str, list[int]] = {}

    def tokens(answer: Answer) -> list[int]:
        turns = [*answer.turns] or [{"role": "assistant", "content": answer.text}]
        before = answer.row["messages"]
        messages = before[: len(before) + 1 - len(turns)]  # without the earlier turns of a dialogue
        key = json.dumps(messages)
        if key not in prompts:
            prompts[key] = encode_prompt(tokenizer, messages, longest.prompt)
        completion, _ = encode_turns(tokenizer, messages, turns, longest.completion)
        return [*prompts[key], *completion]

    return tokens
