"""The reward term python: a function of the user's own."""

import importlib
from typing import cast

from training.learner.reward_terms import Scorer, TermContext, term
from training.learner.runtime.jobdir import BadInput


@term
def python(context: TermContext, function: str) -> Scorer:
    """Return the function `package.module:name`, from answers to numbers. For programs run by hand only.

    Raises BadInput if it cannot be imported or called.
    """
    module, _, name = function.partition(":")
    try:
        scorer = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise BadInput(f"the reward term python cannot import {function!r}: {error}") from error
    if not callable(scorer):
        raise BadInput(f"the reward term python needs a function, and {function!r} is not callable")
    return cast(Scorer, scorer)
