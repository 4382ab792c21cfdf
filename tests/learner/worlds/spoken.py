"""Dialogues over the letters, as messages and as tokens that are written down by hand."""

from typing import Any

from training.learner.models.packing import Episodes, Turn

LETTERS_PROMPT = [{"role": "user", "content": "a"}]  # token 1


def spoken(*texts: str) -> list[dict[str, str]]:
    """Return turns of the assistant and the user with these texts."""
    return [{"role": ("assistant", "user")[place % 2], "content": text} for place, text in enumerate(texts)]


# Their tokens: [2, 3, 0, 4, 1, 0] with the turns (0, 3) and (4, 6), and [2, 0, 3, 4, 0] with (0, 2) and (3, 5).
DIALOGUE, OTHER = spoken("b c", "d", "a"), spoken("b", "c", "d")
TOKENS, SPANS = (2, 3, 0, 4, 1, 0), ((0, 3), (4, 6))
OTHER_TOKENS, OTHER_SPANS = (2, 0, 3, 4, 0), ((0, 2), (3, 5))
LONG = spoken(*"bcdabcdabcdabcd")  # 8 turns of two tokens and 7 answers of one: 23 tokens

# Three episodes, the second of one turn, and the places of the policy's tokens in their completions.
EPISODES = Episodes(
    [[1], [1], [2]],
    [[3, 4, 0, 2, 1, 0], [2, 0], [1, 1, 0, 3, 1]],
    [[Turn(0, 3), Turn(4, 6)], [Turn(0, 2)], [Turn(0, 3), Turn(4, 5)]],
)
WRITTEN = [[0, 1, 2, 4, 5], [0, 1], [0, 1, 2, 4]]


def dialogue_ranking(*turns: Any, **changes: Any) -> dict[str, Any]:
    """Return a ranking of dialogues, the first one best. A text stands for one turn."""
    texts = [one if isinstance(one, str) else "" for one in turns]
    dialogues = [None if isinstance(one, str) else one for one in turns]
    return {
        "prompt_id": 1, "split": "train", "messages": LETTERS_PROMPT, "completions": texts, "turns": dialogues,
        "ranks": list(range(1, len(turns) + 1)), **changes,
    }  # fmt: skip
