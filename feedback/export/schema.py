"""Columns of export formats with fixed types, for files whose readers infer no type.

A type is "text", "integer", "number" or "boolean", a list of one type, or a dict of types by field.
"""

from collections.abc import Mapping
from typing import Any

Type = Any  # a name, [Type] or {field: Type}
Schema = Mapping[str, Type]

EMPTY = {"text": "", "integer": 0, "number": 0.0, "boolean": False}
MESSAGES = [{"role": "text", "content": "text"}]
RETRACTED = "retracted"
# Columns of a line that identify its ranking, in the order of `ranking_record.IDENTITY`.
IDENTITY: dict[str, Type] = {
    "ranking_id": "integer",
    "revision": "integer",
    "comparison_id": "integer",
    "prompt_id": "integer",
    "split": "text",
    "annotator": "text",
}
# Those of a pair beside what trainers read, see `pairs.columns_of`.
OF_PAIR: dict[str, Type] = {
    **IDENTITY,
    "external_id": "text",
    "chosen_source": "text",
    "rejected_source": "text",
    "strength": "integer",
    "trial": "integer",
    "created_at": "text",
    "weight": "number",
}


def empty_of(kind: Type) -> Any:
    """Return the value of a retracted row, whose ranking has no content."""
    if isinstance(kind, list):
        return []
    return {name: empty_of(of) for name, of in kind.items()} if isinstance(kind, dict) else EMPTY[kind]


def completed(line: Mapping[str, Any], schema: Schema) -> dict[str, Any]:
    """Return the line with all columns of the schema and no others, and with `retracted`: "" if it counts."""
    row = {name: line[name] if name in line else empty_of(kind) for name, kind in schema.items()}
    return row | {RETRACTED: line.get(RETRACTED, "")}


def is_flat(schema: Schema) -> bool:
    return all(isinstance(kind, str) for kind in schema.values())
