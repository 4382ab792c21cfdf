"""WebGPT comparisons: an object with `answer_0` and `answer_1`, or a list of two objects with `answer` and `score`."""

from collections.abc import Iterator
from typing import Any

from feedback.imports.maps.description import Rules
from feedback.imports.maps.values import as_object


def flat_rows(row: Any, rules: Rules) -> Iterator[dict[str, Any]]:
    if not isinstance(row, list):
        yield {**row, "question": _question(row.get("question"))}
        return
    sides = [as_object(side, "") for side in row]
    flat: dict[str, Any] = {"question": _question(sides[0].get("question"))}
    for place, side in enumerate(sides):
        flat |= {f"answer_{place}": side.get("answer"), f"score_{place}": side.get("score")}
    yield flat


def _question(question: Any) -> Any:
    """Return the question as an object, which other writers of the format hold as a text."""
    return {"full_text": question} if isinstance(question, str) else question
