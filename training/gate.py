"""The gate: end trials that the votes have decided, and promote the better checkpoint if the project wants it so.

A beat calls `settle_open_trials`. It may run twice, or at the same time as a person's click: every function here locks
the project first, as promotions do, and then reads the trial again.
"""

import logging

from django.db import transaction
from django.utils.translation import gettext as _
from django.utils.translation import gettext_noop as in_english

from feedback import audit
from feedback.actions.trials import end_trial
from feedback.errors import Conflict
from feedback.models import Trial, User
from training import checkpoints, guards
from training.checkpoints.promotions import lock_project
from training.models import Checkpoint, LoopSettings, Promotion
from training.trials import Standing, gate_of, standing_of

logger = logging.getLogger(__name__)


def settle_open_trials() -> int:
    """End all open trials that no vote is left to wait for. Return their number."""
    open_ = Trial.objects.filter(ended_at__isnull=True, project__archived_at__isnull=True)
    return sum(settle(trial) for trial in open_.select_related("project"))


def settle(trial: Trial) -> bool:
    """End the trial, and promote by the gate, if no vote is left to wait for. Return whether this call ended it."""
    if not standing_of(trial).has_ended:
        return False
    with audit.acting("gate"), transaction.atomic():
        standing = _lock(trial)
        if standing is None or not standing.has_ended:
            return False
        note = _promote_by_gate(standing)
        end_trial(standing.trial, decision=standing.decision, chosen=standing.chosen, note=note)
    logger.info("%s of project %s has ended: %s", trial, trial.project.slug, standing.decision)
    return True


@transaction.atomic
def end(trial: Trial, actor: User) -> Trial:
    """End the trial by hand with the decision that its votes give now. Raise Conflict if it has ended."""
    standing = _lock(trial)
    if standing is None:
        raise Conflict(_("Trial %(number)s has ended already.") % {"number": trial.number})
    return end_trial(standing.trial, decision=standing.decision, chosen=standing.chosen, actor=actor)


@transaction.atomic
def promote(trial: Trial, checkpoint: Checkpoint, actor: User, confirmed: bool = False) -> Promotion:
    """Serve a checkpoint of the trial by hand, and end the trial if it is open.

    confirmed: also if a guard fell in the checkpoint's round. Raises Conflict as `checkpoints.promote` does, and if the
    checkpoint is none of the trial's.
    """
    standing = _lock(trial)
    if not trial.trial_sources.filter(source=checkpoint.source_id).exists():
        raise Conflict(
            _("%(checkpoint)s is not in trial %(number)s.") % {"checkpoint": checkpoint, "number": trial.number}
        )
    if standing is not None:
        end_trial(standing.trial, decision=standing.decision, chosen=standing.chosen, actor=actor)
    return checkpoints.promote(checkpoint, actor, confirmed, trial)


def _lock(trial: Trial) -> Standing | None:
    """Lock the project and return the trial's standing; None if it has ended."""
    lock_project(trial.project)
    current = Trial.objects.select_related("project").get(pk=trial.pk)
    return standing_of(current) if current.is_open else None


def _promote_by_gate(standing: Standing) -> str:
    """Promote the better candidate if the project's gate is automatic. Return why it was not, or ""."""
    best, project = standing.best, standing.trial.project
    if best is None or gate_of(project).gate != LoopSettings.Gate.AUTOMATIC:
        return ""
    if best.checkpoint is None:
        return in_english("Not promoted: the better source is no checkpoint.")
    if not project.checkpoints.filter(source=standing.beaten, is_served=True).exists():
        return in_english("Not promoted: the source to beat is not the served checkpoint any more.")
    if falls := guards.fallen(best.checkpoint):
        names = ", ".join(fall.name for fall in falls)
        return "\n".join([in_english("Not promoted: guards fell."), names])  # the first line is translated
    try:
        checkpoints.promote(best.checkpoint, None, trial=standing.trial)
    except Conflict as refusal:
        return refusal.message
    return ""
