"""Input files of jobs: the rows of each kind, and the data that a round with them needs to start.

A kind is one module of this folder, found by discovery, or a function in one. `@rows(name)` registers a function that
takes the round, the job and a dict of counts, and yields the rows of the file; what it counts is stored in
`Round.results["snapshot"]`. A round that is filled again, after a loss, must get the same rows. `@needs(name)`
registers a function that takes the project, the recipe and the settings of a round that is to start, and raises Invalid
if the rows would be missing.
"""

import importlib
import pkgutil
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from feedback.models import Project
from training.models import Round
from training.rounds.recipes.description import Job, Recipe, Sections

Rows = Callable[[Round, Job, dict[str, int]], Iterator[dict[str, Any]]]
Need = Callable[[Project, Recipe, Sections], None]

ROWS: dict[str, Rows] = {}
NEEDS: dict[str, Need] = {}


def rows(kind: str) -> Callable[[Rows], Rows]:
    """Register the rows of a kind of input file."""

    def register(function: Rows) -> Rows:
        ROWS[kind] = function
        return function

    return register


def needs(kind: str) -> Callable[[Need], Need]:
    """Register the conditions of a kind of input file."""

    def register(function: Need) -> Need:
        NEEDS[kind] = function
        return function

    return register


def check(project: Project, recipe: Recipe, settings: Sections, jobs: Iterable[Job]) -> None:
    """Raise Invalid if data that the jobs read is missing in the project."""
    for kind in dict.fromkeys(kind for job in jobs for kind in job.inputs.values()):
        if kind in NEEDS:
            NEEDS[kind](project, recipe, settings)


for _module in sorted(module.name for module in pkgutil.iter_modules(__path__)):
    importlib.import_module(f"{__name__}.{_module}")
