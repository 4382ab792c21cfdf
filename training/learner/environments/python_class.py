"""The environment python: a class of the user's own."""

import importlib
from typing import cast

from training.learner.environments import Environment, EnvironmentContext, environment
from training.learner.runtime.jobdir import BadInput


@environment("python")
def python(context: EnvironmentContext, make: str) -> Environment:
    """Return a new object of `package.module:Class`, which takes no arguments. For programs run by hand only.

    Raises BadInput if it cannot be imported, or lacks `reset` or `step`.
    """
    module, _, name = make.partition(":")
    try:
        made = getattr(importlib.import_module(module), name)()
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise BadInput(f"the environment python cannot make {make!r}: {error}") from error
    if not (callable(getattr(made, "reset", None)) and callable(getattr(made, "step", None))):
        raise BadInput(f"the environment python needs a class with reset and step, as in Gymnasium, not {make!r}")
    return cast(Environment, made)
