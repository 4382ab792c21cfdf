"""Checks of texts and JSON values before they are stored. Each error message names the field, passed as `what`."""

import json
from typing import Any

from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from feedback.errors import Invalid

MAX_TEXT_LENGTH = 1_000_000  # characters of a message or completion
MAX_JSON_LENGTH = 100_000  # characters of metadata or sampling settings, as JSON
MAX_JSON_DEPTH = 20

NAMES_OF_TYPES = {
    dict: gettext_lazy("an object"),
    list: gettext_lazy("a list"),
    str: gettext_lazy("a text"),
    bool: gettext_lazy("true or false"),
    type(None): "null",
}


def name_of_type(value: object) -> str:
    return str(NAMES_OF_TYPES.get(type(value), _("a number")))


def text(value: object, what: str | Promise, max_length: int = MAX_TEXT_LENGTH) -> str:
    """Return the value if it is a text that PostgreSQL and UTF-8 can hold. Raises Invalid."""
    if not isinstance(value, str):
        raise Invalid(_("%(what)s must be a text, not %(type)s.") % {"what": what, "type": name_of_type(value)})
    if len(value) > max_length:
        raise Invalid(
            _("%(what)s has %(count)s characters, more than the maximum of %(longest)s.")
            % {"what": what, "count": f"{len(value):,}", "longest": f"{max_length:,}"}
        )
    if "\x00" in value:
        raise Invalid(_("%(what)s contains a NUL character, which cannot be stored: remove it.") % {"what": what})
    try:
        value.encode()
    except UnicodeEncodeError:
        raise Invalid(
            _("%(what)s contains half of a surrogate pair, so it is not valid Unicode: remove it.") % {"what": what}
        ) from None
    return value


def storable(value: str) -> str:
    """Return a text about a refused value, with U+FFFD for what PostgreSQL and UTF-8 cannot hold."""
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace").replace("\x00", "\ufffd")


def filled_text(value: object, what: str | Promise, max_length: int = MAX_TEXT_LENGTH) -> str:
    """Return the value like `text`. Raises Invalid if it is blank, too."""
    if not text(value, what, max_length).strip():
        raise Invalid(_("%(what)s is empty.") % {"what": what})
    assert isinstance(value, str)
    return value


def json_object(value: object, what: str | Promise) -> dict[str, Any]:
    """Return the value if it is an object that PostgreSQL's jsonb can hold. Raises Invalid."""
    if not isinstance(value, dict):
        raise Invalid(_("%(what)s must be an object, not %(type)s.") % {"what": what, "type": name_of_type(value)})
    if not value:
        return value
    _check_json(value, what, MAX_JSON_DEPTH)
    try:
        length = len(json.dumps(value, allow_nan=False))
    except ValueError:
        raise Invalid(
            _("%(what)s contains a number that is not finite, which JSON cannot write.") % {"what": what}
        ) from None
    if length > MAX_JSON_LENGTH:
        raise Invalid(
            _("%(what)s has %(length)s characters as JSON, more than the maximum of %(largest_json)s.")
            % {"what": what, "length": f"{length:,}", "largest_json": f"{MAX_JSON_LENGTH:,}"}
        )
    return value


def _check_json(value: object, what: str | Promise, depth: int) -> None:
    if depth == 0:
        raise Invalid(
            _("%(what)s is nested more than %(deepest_json)s levels deep.")
            % {"what": what, "deepest_json": MAX_JSON_DEPTH}
        )
    if isinstance(value, str):
        text(value, what)
    elif isinstance(value, dict):
        for key, item in value.items():
            text(key, what)
            _check_json(item, what, depth - 1)
    elif isinstance(value, list):
        for item in value:
            _check_json(item, what, depth - 1)


def known_keys(row: object, known: set[str], what: str | Promise) -> dict[str, Any]:
    """Return the row if it is an object whose keys are all known. Raises Invalid, since a typo must not be ignored."""
    if not isinstance(row, dict):
        raise Invalid(_("%(what)s must be an object, not %(type)s.") % {"what": what, "type": name_of_type(row)})
    for key in row:
        if key not in known:
            raise Invalid(
                _('%(what)s has the unknown key "%(key)s": the keys are %(known)s.')
                % {"what": what, "key": str(key)[:50], "known": ", ".join(sorted(known))}
            )
    return row
