"""Chatbot Arena 55k: `prompt`, `response_a` and `response_b` are lists of texts, one a turn, written as JSON."""

from collections.abc import Iterator
from typing import Any

from django.utils.translation import gettext as _

from feedback.imports.maps.description import Rules
from feedback.imports.maps.values import FieldError, as_list, needed


def flat_rows(row: dict[str, Any], rules: Rules) -> Iterator[dict[str, Any]]:
    prompts = _texts(row, "prompt")
    flat = dict(row)
    for side in ("a", "b"):
        column = f"response_{side}"
        replies = _texts(row, column)
        if len(replies) != len(prompts):
            raise FieldError(
                _('"%(column)s" has %(count)s answers to %(size)s messages.')
                % {"column": column, "count": len(replies), "size": len(prompts)},
                column,
            )
        flat[f"conversation_{side}"] = [
            {"role": role, "content": text}
            for pair in zip(prompts, replies, strict=True)
            for role, text in zip(("user", "assistant"), pair, strict=True)
        ]
    yield flat


def _texts(row: dict[str, Any], column: str) -> list[str]:
    texts = as_list(needed(row, column), column)
    if not all(isinstance(text, str) for text in texts):
        raise FieldError(_('"%(column)s" must be a list of texts.') % {"column": column}, column, texts)
    return texts
