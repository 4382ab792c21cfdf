"""Fields of settings: default, help, limits, and the checks of their values. Standard library only."""

import dataclasses
import math
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from training.learner.runtime.jobdir import BadInput

KIND_NAMES = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "true or false",
    list: "a list",
    dict: "an object",
}


def setting(
    default: Any,
    *,
    help: str,
    label: str = "",
    names: Sequence[str] = (),
    meanings: Mapping[str, str] | None = None,
    only_for: Sequence[str] = (),
    **limits: Any,
) -> Any:
    """Return a dataclass field: the one declaration of a setting, for config.json, `--help`, console, API and docs.

    label: its name for people; none if no person sets it. names: the names that its objects may have. meanings: of the
    choices, where `help` does not have them. only_for: in which rounds it is used, see `rounds.declared`; empty: in
    all that have its section. Limits: `low` and `high` (inclusive), `above` and `below` (exclusive), `choices`.
    """
    metadata = {
        "help": help,
        "label": label,
        "names": tuple(names),
        "meanings": dict(meanings or {}),
        "only_for": tuple(only_for),
        "limits": limits,
    }
    if isinstance(default, list | dict):
        return dataclasses.field(default_factory=lambda: type(default)(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def default_of(field: dataclasses.Field) -> Any:
    """Return the default of a field that `setting` made."""
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def as_kind(name: str, value: Any, kind: Any) -> Any:
    """Return the value as the type of its field. An int is accepted for a float. Raises BadInput for other types."""
    origin = typing.get_origin(kind) or kind
    if origin is types.UnionType:
        origin = tuple(typing.get_origin(member) or member for member in typing.get_args(kind))
    if origin is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, origin) or (isinstance(value, bool) and origin is not bool):
        raise BadInput(f"{name} must be {KIND_NAMES.get(origin, 'of another type')}, not {value!r}")
    if isinstance(value, float) and not math.isfinite(value):
        raise BadInput(f"{name} must be finite, not {value!r}")
    return value


def check_limits(name: str, value: Any, limits: Mapping[str, Any]) -> None:
    """Raise BadInput if the value is outside the limits."""
    if "choices" in limits and value not in limits["choices"]:
        raise BadInput(f"{name} must be one of {', '.join(limits['choices'])}, not {value!r}")
    if "low" in limits and value < limits["low"]:
        raise BadInput(f"{name} must be at least {limits['low']}, not {value!r}")
    if "above" in limits and value <= limits["above"]:
        raise BadInput(f"{name} must be above {limits['above']}, not {value!r}")
    if "high" in limits and value > limits["high"]:
        raise BadInput(f"{name} must be at most {limits['high']}, not {value!r}")
    if "below" in limits and value >= limits["below"]:
        raise BadInput(f"{name} must be below {limits['below']}, not {value!r}")


def check_fields(settings: Any) -> None:
    """Raise BadInput if a field of a settings dataclass is outside its limits."""
    for field in dataclasses.fields(settings):
        check_limits(field.name, getattr(settings, field.name), field.metadata.get("limits", {}))


def exact_division(whole: int, part: int, whole_name: str, part_name: str) -> int:
    """Return whole / part. Raises BadInput if it leaves a remainder."""
    if whole % part:
        raise BadInput(f"{whole_name} ({whole}) must be a multiple of {part_name} ({part})")
    return whole // part
