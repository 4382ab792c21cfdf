"""Recipes: descriptions of rounds as lists of jobs. A recipe is one module of this folder, found by discovery.

A module of a recipe makes a `Recipe` (see `description`): its name, its texts for people, the programs whose settings
it uses, and a function that lists the jobs of a round. From that description follow the job directories
(`run_round.jobs`), the conditions of a start, the settings that a round stores and accepts, the form, the stages,
curves and figures of the round's page, and the API. `parts` has the stages and jobs that several recipes share.
"""

import importlib
import pkgutil
from typing import Any

from training.rounds.recipes.description import Recipe

DEFAULT = "ppo"  # also of rounds that were stored before recipes existed

RECIPES: dict[str, Recipe] = {}

# The default comes first, in the form too.
for _module in sorted(
    (module.name for module in pkgutil.iter_modules(__path__)), key=lambda name: (name != DEFAULT, name)
):
    for _value in vars(importlib.import_module(f"{__name__}.{_module}")).values():
        if isinstance(_value, Recipe):
            RECIPES[_value.name] = _value


def recipe_of(settings: dict[str, Any]) -> Recipe:
    """Return the recipe of a round's stored settings. Raise KeyError if it is not there any more."""
    return RECIPES[settings.get("round", {}).get("recipe", DEFAULT)]
