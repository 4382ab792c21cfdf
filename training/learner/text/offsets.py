"""Tokens of a text with the characters that each of them stands for."""

from collections.abc import Sequence
from typing import Any

from training.learner.runtime.jobdir import BadInput
from training.learner.text.control_tokens import encode_text, encoding_of

Offsets = Sequence[tuple[int, int]]  # of each token: its first character, and the one after its last


def encode_with_offsets(tokenizer: Any, text: str) -> tuple[list[int], Offsets]:
    """Return the tokens of a text, as `encode_text` does, and their offsets in characters (code points).

    A character of several bytes may be divided among tokens; each of them then has its offsets. Raises BadInput for a
    tokenizer without tokenizer.json, which has no offsets.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise BadInput("a tokenizer without tokenizer.json has no character offsets of its tokens")
    encoding = encoding_of(tokenizer, text)
    if list(encoding.ids) != encode_text(tokenizer, text):
        raise BadInput(f"the tokenizer's offsets of {text!r:.80} belong to other tokens")
    return list(encoding.ids), encoding.offsets
