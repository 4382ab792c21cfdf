"""Argilla: records with `fields` and `responses`, nested or flat (`QUESTION.responses`, `QUESTION.responses.users`).

A ranking is a list of names of fields a person; a rating question that names no field is left alone.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from django.utils.translation import gettext as _

from feedback.imports.maps.description import Rules
from feedback.imports.maps.values import FieldError

PROMPTS = ("prompt", "instruction", "question", "input", "query")
SUBMITTED = ("submitted", "completed", None)


def flat_rows(row: dict[str, Any], rules: Rules) -> Iterator[dict[str, Any]]:
    fields = row["fields"] if isinstance(row.get("fields"), Mapping) else _flat_fields(row)
    name = next((name for name in PROMPTS if isinstance(fields.get(name), str | list)), None)
    if name is None:
        raise FieldError(_('The row has no "%(column)s".') % {"column": "fields.prompt"}, "fields.prompt")
    prompt = fields[name]
    metadata = dict(row["metadata"]) if isinstance(row.get("metadata"), Mapping) else {}
    flat: dict[str, Any] = {
        "messages": [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt,
        "answers": _answers(fields, name, metadata),
        "external_id": row.get("id"),
        "metadata": metadata,
    }
    rankings = list(_rankings(row, {answer["name"] for answer in flat["answers"]}))
    if not rankings:
        yield flat
    for order, user, is_discarded in rankings:
        yield flat | {"order": order, "judge": user, "cancelled": is_discarded}


def _answers(fields: Mapping[str, Any], prompt: str, metadata: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the other texts of a record. Our own exports name their sources in the metadata, which loses them."""
    answers: list[dict[str, Any]] = [
        {"name": name, "text": text} for name, text in fields.items() if name != prompt and isinstance(text, str)
    ]
    sources = metadata.get("sources")
    if isinstance(sources, str) and {"prompt_id", "split"} <= metadata.keys():
        for name in ("sources", "prompt_id", "split"):
            del metadata[name]
        names = sources.split(", ")
        if len(names) == len(answers):
            answers = [answer | {"source": source} for answer, source in zip(answers, names, strict=True)]
    return answers


def _flat_fields(row: Mapping[str, Any]) -> dict[str, Any]:
    questions = {name.removesuffix(".responses") for name in row if name.endswith(".responses")}
    reserved = {"id", "_server_id", "status", "metadata", "vectors", "suggestions"}
    return {
        name: value
        for name, value in row.items()
        if name not in reserved
        and not any(name == question or name.startswith(f"{question}.") for question in questions)
    }


def _rankings(row: Mapping[str, Any], names: set[str]) -> Iterator[tuple[list[Any], Any, bool]]:
    """Yield (names or tiers of names, the person, whether they discarded the record)."""
    responses = row.get("responses")
    if isinstance(responses, Mapping):
        for answers in responses.values():
            for response in answers or []:
                order = _order(response.get("value"), names)
                if order is not None:
                    yield order, response.get("user_id"), response.get("status") == "discarded"
        return
    for column, values in row.items():
        if not column.endswith(".responses") or not isinstance(values, list):
            continue
        users, status = row.get(f"{column}.users") or [], row.get(f"{column}.status") or []
        for place, value in enumerate(values):
            order = _order(value, names)
            if order is not None:
                user = users[place] if place < len(users) else None
                yield order, user, place < len(status) and status[place] == "discarded"


def _order(value: Any, names: set[str]) -> list[Any] | None:
    """Return the order of a ranking question; None for an answer to another question."""
    if isinstance(value, list) and value and all(isinstance(item, Mapping) and "value" in item for item in value):
        tiers: dict[int, list[str]] = {}
        for item in value:
            tiers.setdefault(int(item.get("rank") or 1), []).append(str(item["value"]))
        value = [tiers[rank] for rank in sorted(tiers)]
    listed = (
        {str(name) for tier in value for name in (tier if isinstance(tier, list) else [tier])}
        if isinstance(value, list)
        else set()
    )
    return value if listed and listed <= names else None
