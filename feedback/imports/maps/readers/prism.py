"""PRISM: a conversation whose turns have one answer of several models each, with scores from 1 to 100 by one person."""

from collections.abc import Iterator
from itertools import groupby
from typing import Any

from feedback.imports.maps.description import Rules
from feedback.imports.maps.values import as_list, needed


def flat_rows(row: dict[str, Any], rules: Rules) -> Iterator[dict[str, Any]]:
    history = as_list(needed(row, "conversation_history"), "conversation_history")
    messages: list[dict[str, str]] = []
    for turn, group in groupby(history, key=lambda item: item.get("turn")):
        items = list(group)
        messages = [
            *messages,
            *({"role": "user", "content": item["content"]} for item in items if item["role"] == "user"),
        ]
        models = [item for item in items if item["role"] == "model"]
        if models:
            yield {
                "messages": messages,
                "answers": [
                    {"text": item["content"], "source": item.get("model_name"), "score": item.get("score")}
                    for item in models
                ],
                "judge": row.get("user_id"),
                "external_id": f"{row['conversation_id']}-{turn}" if row.get("conversation_id") else None,
                "metadata": {},
            }
        chosen = next((item for item in models if item.get("if_chosen")), None)
        if chosen is None:
            return
        messages = [*messages, {"role": "assistant", "content": chosen["content"]}]
