"""Automatic rounds: the settings of a project's loop, and the start after enough new rankings."""

import logging
from typing import Any

from django.db import transaction
from django.db.models import Max, Q
from django.utils.translation import gettext as _

from feedback import audit
from feedback.errors import Conflict, Invalid
from feedback.models import Project
from training.models import LoopSettings, Round
from training.rounds import settings as round_settings
from training.rounds.inputs.rankings import trainable_rankings
from training.rounds.recipes import DEFAULT, RECIPES
from training.rounds.recipes.description import Sections
from training.rounds.start import start_round

logger = logging.getLogger(__name__)


def configure(
    project: Project,
    round_every: int | None,
    settings: Sections | None = None,
    gate: str | None = None,
    worthwhile_share: float | None = None,
) -> LoopSettings:
    """Set after how many new rankings a round starts (None: never), and the loop's other settings (None: unchanged).

    gate, worthwhile_share: see `configure_gate`. Raises Invalid if no round could start with these values.
    """
    if round_every is not None and not 1 <= round_every < 2**31:
        raise Invalid(_("Give 1 or more new rankings, or leave the field empty to start rounds by hand only."))
    values: dict[str, Any] = {"round_every": round_every}
    if settings is not None:
        round_settings.check_defaults(settings)
        values["settings"] = settings
    return _store(project, values | _gate_values(gate, worthwhile_share))


def configure_gate(project: Project, gate: str, worthwhile_share: float) -> LoopSettings:
    """Set who promotes after a trial, and the win share below which later trials are futile (0.5: none is).

    Raises Invalid for a value outside its range.
    """
    return _store(project, _gate_values(gate, worthwhile_share))


@transaction.atomic
def _store(project: Project, values: dict[str, Any]) -> LoopSettings:
    names = ["round_every", "settings", "gate", "worthwhile_share"]
    known = LoopSettings.objects.select_for_update().filter(project=project).first()
    before = audit.values_of(known or LoopSettings(), names)
    loop, _is_new = LoopSettings.objects.update_or_create(project=project, defaults=values)
    audit.record("loop.settings", project, loop, before=before, after=audit.values_of(loop, names))
    return loop


def _gate_values(gate: str | None, worthwhile_share: float | None) -> dict[str, Any]:
    """Return the values that are not None. Raise Invalid for one outside its range."""
    if gate is not None and gate not in LoopSettings.Gate.values:
        raise Invalid(_('The gate must be "hand" or "automatic".'))
    if worthwhile_share is not None and not 0.5 <= worthwhile_share <= 0.99:
        raise Invalid(_("The share below which a trial is futile must lie between 50 and 99 percent."))
    values = {"gate": gate, "worthwhile_share": worthwhile_share}
    return {name: value for name, value in values.items() if value is not None}


def configure_with_recipe(project: Project, round_every: int | None, recipe: str) -> LoopSettings:
    """Set after how many new rankings a round of this recipe starts ("": the recipe stays). Raise as `configure` does.

    Of the loop's settings, sections of programs that another recipe does not use are dropped, except for their
    environment.
    """
    loop = LoopSettings.objects.filter(project=project).first()
    settings = loop.settings if loop else {}
    if not recipe:
        return configure(project, round_every)
    chosen = round_settings.changed(settings, {"round": {"recipe": recipe}})
    new = round_settings.chosen_recipe(chosen, RECIPES[DEFAULT])
    kept = {name: values for name, values in chosen.items() if name in round_settings.sections_of(new)}
    environment, section = round_settings.environment_in(chosen), round_settings.playing_section(new)
    if environment and section:
        kept = round_settings.changed({section: environment}, kept)
    return configure(project, round_every, kept)


def start_due() -> list[Round]:
    """Start a round in each project that has as many new rankings as its loop asks for."""
    started = []
    for loop in LoopSettings.objects.filter(round_every__isnull=False, project__archived_at__isnull=True):
        if is_due(loop):
            try:
                with audit.acting("schedule"):
                    started.append(start_round(loop.project, None))
            except (Conflict, Invalid) as reason:
                # Nothing is served, another start was faster, or the settings are wrong. The next beat tries again.
                logger.warning("no automatic round in project %s: %s", loop.project.slug, reason.message)
    return started


def is_due(loop: LoopSettings) -> bool:
    """Return whether an automatic round should start now. Rankings that a failed round took are not new."""
    if loop.round_every is None or loop.project.rounds.filter(status__in=Round.ACTIVE).exists():
        return False
    last = loop.project.rounds.filter(learns=True).aggregate(last=Max("cutoff"))["last"] or 0
    unseen = Q(sequence__gt=last) | Q(sequence__isnull=True)
    return trainable_rankings(loop.project).filter(unseen).count() >= loop.round_every
