"""Recognition of other tools' formats of preference data, for a helpful error message. Nothing is converted."""

from collections.abc import Callable, Mapping
from typing import Any

from django.utils.translation import gettext as _

Row = Mapping[str, Any]


def _has(*names: str) -> Callable[[Row], bool]:
    return lambda row: all(name in row for name in names)


def _is_transcript(row: Row) -> bool:
    return any(isinstance(row.get(side), str) and "\n\nHuman:" in row[side] for side in ("chosen", "rejected"))


def _is_own_export(row: Row) -> bool:
    return _has("chosen", "rejected", "comparison_id", "ranking_id")(row) or _has("ranks", "completion_ids")(row)


# The first match wins, so a format comes before those whose fields are a part of its own. Checked on published files.
FORMATS: tuple[tuple[str, Callable[[Row], bool]], ...] = (
    ("an export of Accord", _is_own_export),
    ("HH-RLHF (transcripts)", _is_transcript),
    ("OpenAI's preference format", _has("input", "preferred_output")),
    ("HelpSteer3", _has("context", "response1", "response2")),
    ("HelpSteer2", _has("response", "helpfulness")),
    ("UltraFeedback", _has("instruction", "completions", "models")),
    ("Nectar", _has("prompt", "answers")),
    ("a chatbot arena's battles", _has("conversation_a", "conversation_b")),
    ("a chatbot arena's battles", _has("response_a", "response_b")),
    ("SHP", _has("history", "human_ref_A", "human_ref_B")),
    ("WebGPT comparisons", _has("question", "answer_0", "answer_1")),
    ("Stack Exchange pairs", _has("question", "response_j", "response_k")),
    ("an export of Label Studio", _has("data", "annotations")),
    ("an export of Argilla", _has("fields", "responses")),
    ("OpenAssistant messages", _has("message_tree_id", "prompt")),
    ("OpenAssistant messages", _has("message_id", "replies")),
    ("LLaMA-Factory's preference format", _has("conversations", "chosen")),
    ("LLaMA-Factory's preference format", _has("chosen_messages", "rejected_messages")),
    ("ShareGPT (conversations)", _has("conversations")),
    ("TRL's preference format", _has("chosen", "rejected")),
    ("TRL's KTO format", _has("completion", "label")),
    ("TRL's KTO format", _has("messages", "label")),
    ("Alpaca instructions", _has("instruction", "output")),
)


def recognise(row: object) -> str | None:
    """Return the name of the format that the row looks like; None if it is none of these."""
    if not isinstance(row, dict):
        return None
    return next((name for name, matches in FORMATS if matches(row)), None)


def how_to_convert() -> str:
    """Return the sentence that shows the form of a row."""
    return _(
        'One line is {"prompt": "..." or "messages": [...], "completions": ["...", "..."]}. '
        "Preferences are not imported."
    )
