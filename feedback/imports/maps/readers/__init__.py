"""Readers of formats that columns cannot describe: each turns a row into flat rows for its map.

A module has `flat_rows(row, rules)`, which yields objects with these columns, as far as they are known: `messages`,
`answers` (objects with `text`, `name`, `source`, `rank`, `score`), `order`, `ranks`, `judge`, `seconds`, `time`,
`cancelled`, `gold`, `external_id`, `metadata`.
"""

from collections.abc import Iterator
from importlib import import_module
from typing import Any

from feedback.imports.maps.description import Rules


def flat_rows(name: str, row: dict[str, Any] | list[Any], rules: Rules) -> Iterator[dict[str, Any]]:
    """Yield the flat rows that the reader of this name makes of a row. Raises FieldError."""
    module = import_module(f"{__name__}.{name.replace('-', '_')}")
    flat: Iterator[dict[str, Any]] = module.flat_rows(row, rules)
    return flat
