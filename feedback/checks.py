"""What a text or a JSON value must be before it is stored: each refusal is a sentence that names the field."""

import json
from typing import Any

from feedback.errors import Invalid

LONGEST_TEXT = 1_000_000  # characters of a message or completion
LARGEST_JSON = 100_000  # characters of metadata or sampling settings, as JSON
DEEPEST_JSON = 20

NAMES_OF_TYPES = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}


def name_of_type(value: object) -> str:
    return NAMES_OF_TYPES.get(type(value), "a number")


def text(value: object, what: str, longest: int = LONGEST_TEXT) -> str:
    """The value, if PostgreSQL and UTF-8 can hold it."""
    if not isinstance(value, str):
        raise Invalid(f"{what} must be a text, not {name_of_type(value)}.")
    if len(value) > longest:
        raise Invalid(f"{what} has {len(value):,} characters, and {longest:,} is the most.")
    if "\x00" in value:
        raise Invalid(f"{what} contains a NUL character, which cannot be stored: remove it.")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise Invalid(f"{what} contains half of a surrogate pair, so it is not valid Unicode: remove it.") from None
    return value


def filled_text(value: object, what: str, longest: int = LONGEST_TEXT) -> str:
    """As `text`, and not blank."""
    if not text(value, what, longest).strip():
        raise Invalid(f"{what} is empty.")
    assert isinstance(value, str)
    return value


def json_object(value: object, what: str) -> dict[str, Any]:
    """The value, if it is an object that PostgreSQL's jsonb can hold."""
    if not isinstance(value, dict):
        raise Invalid(f"{what} must be an object, not {name_of_type(value)}.")
    _walk(value, what, DEEPEST_JSON)
    try:
        length = len(json.dumps(value, allow_nan=False))
    except ValueError:
        raise Invalid(f"{what} contains a number that is not finite, which JSON cannot write.") from None
    if length > LARGEST_JSON:
        raise Invalid(f"{what} has {length:,} characters as JSON, and {LARGEST_JSON:,} is the most.")
    return value


def _walk(value: object, what: str, depth: int) -> None:
    if depth == 0:
        raise Invalid(f"{what} is nested more than {DEEPEST_JSON} levels deep.")
    if isinstance(value, str):
        text(value, what)
    elif isinstance(value, dict):
        for key, item in value.items():
            text(key, what)
            _walk(item, what, depth - 1)
    elif isinstance(value, list):
        for item in value:
            _walk(item, what, depth - 1)


def known_keys(row: object, known: set[str], what: str) -> dict[str, Any]:
    """The row, if it is an object without a key that we would silently ignore."""
    if not isinstance(row, dict):
        raise Invalid(f"{what} must be an object, not {name_of_type(row)}.")
    for key in row:
        if key not in known:
            raise Invalid(f"{what} has the unknown key «{str(key)[:50]}»: the keys are {', '.join(sorted(known))}.")
    return row
