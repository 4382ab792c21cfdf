"""Recognition of a file's format by its first rows."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from django.utils.translation import gettext as _

from feedback.errors import Invalid
from feedback.imports.maps import conversations, readers, shipped
from feedback.imports.maps.description import Map, Match
from feedback.imports.maps.values import MISSING, lookup

TYPES: dict[str, Callable[[Any], bool]] = {
    "text": lambda value: isinstance(value, str) and not conversations.is_transcript(value),
    "transcript": conversations.is_transcript,
    "messages": lambda value: isinstance(value, list) and bool(value) and isinstance(value[0], Mapping),
    "list": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, Mapping),
}
NATIVE = "accord"
NATIVE_KEYS = {"messages", "prompt", "external_id", "references", "metadata", "completions"}


def recognise(rows: Sequence[object]) -> Map | None:
    """Return the shipped map that fits most of the rows; of several the one with the most conditions."""
    fits = [(sum(fitting(row, made) for row in rows), conditions(made.match), made) for made in shipped().values()]
    count, _conditions, best = max(fits, key=lambda fit: fit[:2])
    return best if count and count * 2 >= len(rows) else None


def fitting(row: object, made: Map) -> bool:
    """Return whether a row has what a map is recognised by."""
    if made.reader == "webgpt" and isinstance(row, list) and len(row) == 2:
        row = next(readers.flat_rows("webgpt", row, made.rules)) if all(isinstance(side, dict) for side in row) else {}
    if not isinstance(row, Mapping):
        return False
    if made.native:
        return row.keys() <= NATIVE_KEYS and ("messages" in row) != ("prompt" in row) and _is_native(row)
    match = made.match
    return (
        all(lookup(row, column) is not MISSING for column in match.columns)
        and not any(column in row for column in match.without)
        and all(any(str(name).endswith(ending) for name in row) for ending in match.endings)
        and all(TYPES[kind](lookup(row, column)) for column, kind in match.types.items())
    )


def _is_native(row: Mapping[str, Any]) -> bool:
    """Return whether the messages of a row end with the user, as those of an upload do; a chat ends with an answer."""
    messages = row.get("messages")
    if not isinstance(messages, list) or not messages or not isinstance(messages[-1], Mapping):
        return isinstance(row.get("prompt"), str)
    return messages[-1].get("role") == "user"


def conditions(match: Match) -> int:
    return len(match.columns) + len(match.endings) + len(match.types)


def must_recognise(rows: Sequence[object]) -> Map:
    """Return the map of a file's first rows. Raises Invalid, which names the columns that are there."""
    made = recognise(rows)
    if made is not None:
        return made
    first = next((row for row in rows if isinstance(row, Mapping)), None)
    if first is None:
        raise Invalid(_("The file has no rows with named columns: name a map."))
    columns = ", ".join(f'"{name}"' for name in list(first)[:20])
    raise Invalid(
        _("The format is not recognised: name a map, or write one for these columns: %(columns)s.")
        % {"columns": columns}
    )


def advice(row: object, chosen: Map | None = None) -> str:
    """Return the sentence that names the map which fits a row, if it is another one than the chosen; else ""."""
    made = recognise([row])
    if made is None or (chosen is not None and made.name == chosen.name):
        return ""
    return _('The row looks like %(format)s: the map "%(map)s" reads it.') % {"format": made.title, "map": made.name}
