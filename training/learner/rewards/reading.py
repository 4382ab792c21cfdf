"""The tokens that a reward model reads of an answer: messages and text, by its own tokenizer."""

import json
from collections.abc import Callable
from typing import Any

from training.learner.models.context_length import max_positions
from training.learner.models.reward_model import MaxLengths, RewardModel
from training.learner.reward_terms import Answer
from training.learner.runtime.config import PpoConfig, Sampling
from training.learner.text.messages import encode_prompt, encode_turns, tokens_left

Scoring = tuple[RewardModel, Any]  # and its tokenizer


def max_lengths_of(model: RewardModel, settings: PpoConfig | Sampling) -> MaxLengths:
    """Return the lengths that the reward model reads: those of its training, by default those of the program."""
    return model.max_lengths or MaxLengths(settings.max_prompt_tokens, settings.max_completion_tokens)


def token_reader(model: RewardModel, tokenizer: Any, longest: MaxLengths) -> Callable[[Answer], list[int]]:
    """Return the function from an answer to the tokens of its prompt and its text, or the turns of a dialogue.

    A dialogue that needs more than the model's positions is cut after the last turn that fits, as in training.
    """
    positions = max_positions(model.network.config)
    prompts: dict[str, list[int]] = {}

    def tokens(answer: Answer) -> list[int]:
        turns = [*answer.turns] or [{"role": "assistant", "content": answer.text}]
        before = answer.row["messages"]
        messages = before[: len(before) + 1 - len(turns)]  # without the earlier turns of a dialogue
        key = json.dumps(messages)
        if key not in prompts:
            prompts[key] = encode_prompt(tokenizer, messages, longest.prompt)
        prompt = prompts[key]
        read = encode_turns(tokenizer, messages, turns, longest.completion, tokens_left(positions, prompt))
        return [*prompt, *read.tokens]

    return tokens
