"""The simulated user of a round's dialogues, as people choose it, and as a program reads it.

A round stores a checkpoint by its name in the project, and an endpoint without its address: a manager in a browser
cannot make a program load any folder, or send requests to any address. The key of the endpoint is in no setting and in
no file: `run_round.process` passes it in the environment of the programs.
"""

from typing import Any

from django.conf import settings
from django.utils.translation import gettext as _

from feedback.errors import Invalid
from feedback.models import Project
from training import checkpoints
from training.checkpoints.files import check_model, positions_of
from training.learner.environments import SINGLE_TURN
from training.models import Checkpoint
from training.rounds.recipes.description import Sections
from training.rounds.settings import PLAYING

Environment = dict[str, Any]


def environment_of(sections: Sections) -> Environment:
    """Return the environment that a round with these settings plays its dialogues in."""
    environment: Environment = _section(sections).get("environment", SINGLE_TURN)
    return environment


def _section(sections: Sections) -> dict[str, Any]:
    """Return the settings of the program that plays the dialogues of a round, or of its samples; {} if none does."""
    return next((sections[name] for name in PLAYING if name in sections), {})


def check(project: Project, sections: Sections) -> None:
    """Raise Invalid or Conflict unless the simulated user can answer: its model is found, or its endpoint is set.

    A checkpoint reads and writes texts of the policy's maximum lengths, for which it needs enough positions.
    """
    environment = environment_of(sections)
    user = environment.get("user", "script")
    if user == "endpoint" and not has_endpoint():
        raise Invalid(
            _(
                "No endpoint is set on this installation that could be the simulated user: an administrator sets "
                "ACCORD_SIMULATED_USER_URL and ACCORD_SIMULATED_USER_MODEL."
            )
        )
    if user == "checkpoint":
        checkpoint = _checkpoint(project, environment["model"])
        checkpoints.check_usable(checkpoint)
        try:
            check_model(checkpoint.path, may_fetch=False)
        except Invalid as error:
            raise Invalid(
                _('The simulated user "%(name)s" cannot be loaded: %(reason)s')
                % {"name": checkpoint, "reason": error.message}
            ) from error
        needed = sum(_section(sections)[name] for name in ("max_prompt_tokens", "max_completion_tokens"))
        positions = positions_of(checkpoint.path)
        if positions is not None and needed > positions:
            raise Invalid(
                _(
                    'The simulated user "%(name)s" has %(positions)s positions, fewer than max_prompt_tokens and '
                    "max_completion_tokens together (%(needed)s): set shorter lengths, or use another checkpoint."
                )
                % {"name": checkpoint, "positions": positions, "needed": needed}
            )


def located(project: Project, environment: Environment) -> Environment:
    """Return the environment with the folder of the checkpoint, or the address of the endpoint."""
    user = environment.get("user", "script")
    if user == "checkpoint":
        return environment | {"model": _checkpoint(project, environment["model"]).path}
    if user == "endpoint":
        return environment | {"url": settings.SIMULATED_USER_URL, "model": settings.SIMULATED_USER_MODEL}
    return environment


def has_endpoint() -> bool:
    """Return whether this installation has an endpoint that can be the simulated user."""
    return bool(settings.SIMULATED_USER_URL and settings.SIMULATED_USER_MODEL)


def names_of_checkpoints(project: Project) -> list[str]:
    """Return the names of the checkpoints that can be the simulated user, newest first."""
    return list(checkpoints.usable_in(project).order_by("-pk").values_list("source__name", flat=True))


def _checkpoint(project: Project, name: str) -> Checkpoint:
    checkpoint = project.checkpoints.filter(source__name=name).select_related("source").first()
    if checkpoint is None:
        raise Invalid(
            _('This project has no checkpoint "%(name)s" that could be the simulated user: use one of %(known)s.')
            % {"name": name, "known": ", ".join(names_of_checkpoints(project)) or "–"}
        )
    return checkpoint
