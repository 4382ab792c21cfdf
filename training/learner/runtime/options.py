"""Options of a registered function or class: the parameters of its signature, checked in settings."""

import inspect
import typing
from collections.abc import Mapping
from typing import Any

from training.learner.runtime.fields import as_kind, check_limits
from training.learner.runtime.jobdir import BadInput


def options_of(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of an entry of settings: all but its name and weight."""
    return {option: value for option, value in entry.items() if option not in ("name", "weight")}


def check_options(what: str, values: Mapping[str, Any], parameters: Mapping[str, inspect.Parameter]) -> None:
    """Raise BadInput unless the values suit the parameters' annotations and no required one is missing.

    An annotation gives the type, choices (`Literal`) and limits (`Annotated[float, {"above": 0}]`). what: the owner of
    the options, for messages.
    """
    for option, value in values.items():
        if option not in parameters:
            raise BadInput(f"{what} has no setting {option!r}")
        _check_option(f"{option} of {what}", value, parameters[option].annotation)
    for option, parameter in parameters.items():
        if option not in values and parameter.default is inspect.Parameter.empty:
            raise BadInput(f"{what} needs the setting {option}")


def _check_option(what: str, value: Any, annotation: Any) -> None:
    kind, *limits = typing.get_args(annotation) if typing.get_origin(annotation) is typing.Annotated else [annotation]
    if typing.get_origin(kind) is typing.Literal:
        check_limits(what, value, {"choices": typing.get_args(kind)})
        return
    checked = as_kind(what, value, kind)
    for limit in limits:
        check_limits(what, checked, limit)
