"""The tokens that a reward model reads of an answer: messages and text, by its own tokenizer."""

import json
from collections.abc import Callable
from typing import Any

from training.learner.models.reward_model import MaxLengths, RewardModel
from training.learner.reward_terms import Answer
from training.learner.runtime.config import PpoConfig, SampleConfig
from training.learner.text.messages import encode_completion, encode_prompt

Scoring = tuple[RewardModel, Any]  # and its tokenizer


def max_lengths_of(model: RewardModel, settings: PpoConfig | SampleConfig) -> MaxLengths:
    """Return the lengths that the reward model reads: those of its training, by default those of the program."""
    return model.max_lengths or MaxLengths(settings.max_prompt_tokens, settings.max_completion_tokens)


def token_reader(tokenizer: Any, longest: MaxLengths) -> Callable[[Answer], list[int]]:
    """Return the function from an answer to the tokens of its prompt and its text; it remembers prompts."""
    prompts: dict[str, list[int]] = {}

    def tokens(answer: Answer) -> list[int]:
        key = json.dumps(answer.row["messages"])
        if key not in prompts:
            prompts[key] = encode_prompt(tokenizer, answer.row["messages"], longest.prompt)
        return [*prompts[key], *encode_completion(tokenizer, answer.text, longest.completion)]

    return tokens
