"""Near-duplicates among the completions of one comparison: to choose between them teaches nothing.

Two completions are near-duplicates if they look the same on the page, if their texts are equal in Unicode's normal form
C, or if their normalised edit distance (edits divided by the longer length) is under 5 %. Comparisons of imported
judgements are not changed.
"""

import math
import unicodedata
from collections.abc import Sequence

from feedback.dialogues import Answer, visible_key
from feedback.imports.edit_distance import distance_within
from feedback.rendering import render_answer

MIN_DISTANCE = 0.05  # edits divided by the longer length


def are_alike(one: Answer, other: Answer) -> bool:
    """Return whether two completions are near-duplicates."""
    first, second = _normal(one), _normal(other)
    if first == second:
        return True
    limit = math.ceil(MIN_DISTANCE * max(len(first), len(second))) - 1  # the highest number of edits under 5 %
    return distance_within(first, second, limit) is not None or _looks(one) == _looks(other)


def alike_among(answer: Answer, others: Sequence[Answer]) -> bool:
    """Return whether a completion is a near-duplicate of one of the others."""
    return any(are_alike(answer, other) for other in others)


def _normal(answer: Answer) -> str:
    return unicodedata.normalize("NFC", "\0".join(visible_key(answer)))


def _looks(answer: Answer) -> str:
    """Return the HTML that the page shows, without what the browser does not show: its source and white space."""
    turns = [Answer(turn["content"]) for turn in answer.turns] if answer.turns else [answer]
    return "\0".join(" ".join(unicodedata.normalize("NFC", render_answer(turn)).split()) for turn in turns)
