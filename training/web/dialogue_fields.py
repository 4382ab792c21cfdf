"""Fields of the environment in the form of a round: who answers the policy, with which lines, and how often."""

from collections.abc import Sequence
from typing import Any

from django import forms
from django.utils.translation import gettext as _

from feedback.models import Project
from training.learner.environments import SINGLE_TURN
from training.rounds import simulated_user

LINES, USER, TURNS = "environment", "environment-user", "environment-turns"  # names of the fields in their section
MAX_TURNS = 64
SCRIPT, ENDPOINT = "script", "endpoint"
CHECKPOINT = "checkpoint "  # and its name: a choice of the field USER

Environment = dict[str, Any]


class LinesField(forms.CharField):
    """A text area with one entry per line. The value is the list of the lines that are not blank."""

    def clean(self, value: Any) -> list[str]:
        return _lines_of(super().clean(value))

    def has_changed(self, initial: Any, data: Any) -> bool:
        return not self.disabled and _lines_of(initial) != _lines_of(data)


def _lines_of(text: str | None) -> list[str]:
    return [line.strip() for line in (text or "").splitlines() if line.strip()]


def fields_of(environment: Environment, users: Sequence[str]) -> dict[str, forms.Field]:
    """Return the fields by name. `users` are choices besides the script; that of the environment is one, too."""
    lines, user = environment.get("lines", []), _user_of(environment)
    labels = {SCRIPT: _("The lines below"), ENDPOINT: _("The endpoint of this installation")}
    choices = [(one, labels.get(one, one.removeprefix(CHECKPOINT))) for one in dict.fromkeys([SCRIPT, *users, user])]
    turns = environment.get("turns", 2)
    return {
        USER: forms.ChoiceField(
            label=_("Simulated user"),
            help_text=_("Who answers after each turn of the policy. A completion is then a whole dialogue."),
            initial=user,
            choices=choices,
            required=False,
        ),
        LINES: LinesField(
            label=_("Lines of a simulated user"),
            help_text=_(
                "What the user answers after each turn of the policy, one line each. A prompt with lines of its own "
                "(user_turns) uses those. Empty: the policy answers once."
            ),
            initial="\n".join(lines),
            required=False,
            widget=forms.Textarea(attrs={"rows": 3}),
        ),
        TURNS: forms.IntegerField(
            label=_("Turns of the policy"),
            help_text=_("In a dialogue. Empty: one more than the lines, or 2 if no lines are used."),
            initial=None if environment == SINGLE_TURN or turns == _usual_turns(user, lines) else turns,
            required=False,
            min_value=1,
            max_value=MAX_TURNS,
        ),
    }


def users_of(project: Project) -> list[str]:
    """Return the choices of a simulated user in a project, besides lines."""
    checkpoints = [f"{CHECKPOINT}{name}" for name in simulated_user.names_of_checkpoints(project)]
    return [*checkpoints, *([ENDPOINT] if simulated_user.has_endpoint() else [])]


def environment_of(cleaned: dict[str, Any], section: str, stored: Environment) -> Environment:
    """Return the environment that the fields describe. Settings without a field keep the values of `stored`."""
    user, lines, turns = (cleaned[f"{section}-{name}"] for name in (USER, LINES, TURNS))
    if user in ("", SCRIPT) and not lines:
        return dict(SINGLE_TURN)
    kept = ("end_word",) if user in ("", SCRIPT) else ("end_word", "instruction")
    environment = {"name": "dialogue", **{name: stored[name] for name in kept if name in stored}}
    if user.startswith(CHECKPOINT):
        environment |= {"user": "checkpoint", "model": user.removeprefix(CHECKPOINT)}
    elif user == ENDPOINT:
        environment |= {"user": ENDPOINT}
    else:
        environment |= {"lines": lines}
    return environment | {"turns": turns or _usual_turns(user, lines)}


def unused_of(cleaned: dict[str, Any], section: str, changed: Sequence[str]) -> dict[str, str]:
    """Return a refusal for each changed field that the environment would not use, by the name of the field."""
    user, lines, turns = (cleaned.get(f"{section}-{name}") for name in (USER, LINES, TURNS))
    is_script = user in (None, "", SCRIPT)
    if lines and not is_script and f"{section}-{LINES}" in changed:
        return {LINES: _("These lines are used only if the simulated user is the lines: choose it, or remove them.")}
    if turns and is_script and not lines and f"{section}-{TURNS}" in changed:
        return {TURNS: _("Without a simulated user the policy answers once: write lines, or leave the turns empty.")}
    return {}


def _user_of(environment: Environment) -> str:
    """Return the choice of the field USER for an environment."""
    user = environment.get("user", SCRIPT)
    return f"{CHECKPOINT}{environment['model']}" if user == "checkpoint" else str(user)


def _usual_turns(user: str, lines: list[str]) -> int:
    return len(lines) + 1 if user in ("", SCRIPT) else 2
