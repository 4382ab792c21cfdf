"""Checkpoints that a round's settings name: those of a trial.

A round stores names, and `located` finds the folder, so that a manager in a browser cannot make a program load any
folder.
"""

from collections.abc import Sequence
from typing import Any

from django.utils.translation import gettext as _

from feedback.errors import Invalid
from feedback.models import Project
from training import checkpoints
from training.checkpoints.files import check_model, positions_of
from training.models import Checkpoint
from training.rounds.recipes.description import Sections

FEWEST, MOST = 2, 4


def checkpoints_of(project: Project, sections: Sequence[Sections]) -> list[Checkpoint]:
    """Return the checkpoints that the last of these sections names, in order. Raise Invalid or Conflict if one is bad.

    A checkpoint is bad if the project does not have it, if it is not usable, or if its folder is not there any more.
    """
    named: Any = next((part["checkpoints"] for part in _rounds(sections) if "checkpoints" in part), [])
    if not isinstance(named, list) or not FEWEST <= len(named) <= MOST or len(set(map(str, named))) < len(named):
        raise Invalid(_("A trial needs two to four different checkpoints: choose the one to beat and its candidates."))
    return [usable(project, str(name)) for name in named]


def _rounds(sections: Sequence[Sections]) -> list[dict[str, Any]]:
    return [part.get("round", {}) for part in reversed(sections)]


def usable(project: Project, name: str) -> Checkpoint:
    checkpoint = named(project, name)
    checkpoints.check_usable(checkpoint)
    try:
        check_model(checkpoint.path, may_fetch=False)
    except Invalid as error:
        raise Invalid(
            _('The checkpoint "%(name)s" cannot be loaded: %(reason)s') % {"name": name, "reason": error.message}
        ) from error
    return checkpoint


def positions_of_all(models: Sequence[Checkpoint]) -> int | None:
    """Return the shortest context length of the models in tokens; None if none is known."""
    known = [positions for model in models if (positions := positions_of(model.path)) is not None]
    return min(known, default=None)


def named(project: Project, name: str) -> Checkpoint:
    """Return the project's checkpoint of this name. Raise Invalid."""
    checkpoint = project.checkpoints.filter(source__name=name).select_related("source").first()
    if checkpoint is None:
        raise Invalid(_('This project has no checkpoint "%(name)s".') % {"name": name})
    return checkpoint


def usable_names(project: Project) -> list[str]:
    """Return the names of the usable checkpoints, the served one first, then the newest."""
    return list(checkpoints.usable_in(project).order_by("-is_served", "-pk").values_list("source__name", flat=True))
