"""Figures of single completions, for evaluations and guards: text metrics, length, and shares of failed completions."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from training.learner.policy.dialogues import Dialogue
from training.learner.policy.samples import answer_of, token_count, truncation
from training.learner.reward_terms import Scorer
from training.learner.rewards.reward_function import has_references
from training.learner.text.messages import text_tokens

REPEATED_TOKENS = 4  # shortest phrase of a repetition, the n of seq-rep-4 (Welleck et al. 2020, §5.1)
REPETITIONS = 3  # times in a row (Holtzman et al. 2020, §5)


def figures_of_dialogue(tokenizer: Any, metrics: Mapping[str, Scorer], dialogue: Dialogue) -> dict[str, float]:
    """Return the figures of a completion, or of a dialogue; text metrics only if its prompt has references.

    finished: the last turn has its end-of-turn token, and nothing outside of it cut the dialogue. cut_off: that turn
    has none, because it reached the maximum length. truncated: only of dialogues. empty: the last turn is white space.
    repeated: a turn repeats itself, see `is_repetitive`. tokens: the policy's, end-of-turn tokens included.
    """
    answer = answer_of(dialogue)
    figures: dict[str, float] = {}
    if has_references(answer.row):
        figures |= {name: float(scorer([answer])[0]) for name, scorer in metrics.items()}
    figures |= {
        "tokens": float(token_count(dialogue)),
        "finished": float(answer.finished and not dialogue.is_truncated),
        "cut_off": float(not answer.finished),
        "empty": float(not answer.text.strip()),
        "repeated": float(any(map(is_repetitive, tokens_of_turns(tokenizer, dialogue)))),
    }
    return figures | {name: float(value) for name, value in truncation(dialogue).items()}


def tokens_of_turns(tokenizer: Any, dialogue: Dialogue) -> list[list[int]]:
    """Return the tokens of the policy's turns, without those at which they stopped."""
    turns = [dialogue.completion[turn.start : turn.end] for turn in dialogue.turns]
    return [text_tokens(tokenizer, turn) for turn in turns]


def is_repetitive(tokens: Sequence[int]) -> bool:
    """Return whether a phrase of at least 4 tokens stands three times in a row somewhere in the text.

    Holtzman et al. 2020, "The Curious Case of Neural Text Degeneration", count a generation as a repetition if it ends
    in a phrase of at least two tokens three times. A loop that the length limit cuts ends within its phrase, so it is
    looked for everywhere; two tokens would count numbers and rules of a table.
    """
    row = np.asarray(tokens)
    for period in range(REPEATED_TOKENS, len(row) // REPETITIONS + 1):
        equal = np.concatenate([[0], np.cumsum(row[period:] == row[:-period])])
        needed = (REPETITIONS - 1) * period  # a phrase three times: so many tokens equal those one period later
        if (equal[needed:] - equal[:-needed] == needed).any():
            return True
    return False
