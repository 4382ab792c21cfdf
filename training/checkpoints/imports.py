"""Import of checkpoints, and the end of their checks."""

from typing import Any

from django.db import transaction
from django.db.models.functions import Now
from django.utils.translation import gettext as _

from feedback.errors import Conflict, Forbidden, Invalid
from feedback.models import Project, Source, User
from training.checkpoints import checks
from training.checkpoints.checks import Verdict
from training.checkpoints.files import check_model
from training.checkpoints.promotions import lock_project, promote
from training.models import Checkpoint

WAITING: Any = Checkpoint.Verdict.WAITING
REFUSED: Any = Checkpoint.Verdict.REFUSED


def check_may_import(user: User) -> None:
    """Raises Forbidden. Whoever may name paths of this machine sees all of its models: administrators only."""
    if not user.is_staff:
        raise Forbidden(_("Only this site's administrators may import models."))


def import_checkpoint(
    project: Project,
    path_or_hub_id: str,
    label: str,
    serve: bool = False,
    actor: User | None = None,
    may_fetch: bool = True,
    verdict: Verdict | None = None,
) -> Checkpoint:
    """Take in a causal language model: a Hugging Face folder on this machine, which stays where it is, or a hub id.

    Without a verdict it waits for its check by a worker, and is served after that if so asked. Raises Invalid with a
    sentence when it cannot be used, Conflict when the label is taken.
    """
    label = label.strip()
    if not label or len(label) > 200 or label.startswith("round-"):
        raise Invalid(_("The label names the model's completions: 1 to 200 characters, not starting with «round-»."))
    path = check_model(path_or_hub_id, may_fetch)
    with transaction.atomic():
        source, _is_new = Source.objects.get_or_create(
            project=project, name=label, defaults={"kind": Source.Kind.CHECKPOINT}
        )
        if source.kind == Source.Kind.PERSON or hasattr(source, "checkpoint"):
            raise Conflict(
                _("This project has a checkpoint or person «%(label)s» already: choose another label.")
                % {"label": label}
            )
        # Completions that came in before their model were filed as an import's.
        Source.objects.filter(pk=source.pk).update(kind=Source.Kind.CHECKPOINT)
        imported = Checkpoint.objects.create(
            project=project,
            source=source,
            kind=Checkpoint.Kind.IMPORTED,
            path=path,
            serve_when_checked=serve,
            imported_by=actor,
        )
        if serve:  # the last decision holds
            project.checkpoints.exclude(pk=imported.pk).update(serve_when_checked=False)
        if verdict is None:
            checks.send(imported.pk)
        else:
            settle_check(imported, verdict)
    return imported


@transaction.atomic
def settle_check(checkpoint: Checkpoint, verdict: Verdict) -> None:
    """Store what the check found, serve the checkpoint if that was asked for, and tell those made from it by rounds.

    Does nothing if it does not wait for a check.
    """
    lock_project(checkpoint.project)
    values = {"verdict": verdict.stored, "verdict_reason": verdict.reason, "check_heartbeat_at": None}
    settled = Checkpoint.objects.filter(pk=checkpoint.pk, verdict=WAITING).update(**values)
    checkpoint.refresh_from_db()
    if not settled:
        return
    parents = [checkpoint.pk]
    while parents:
        made = Checkpoint.objects.filter(parent__in=parents, kind=Checkpoint.Kind.ROUND, verdict=WAITING)
        parents = list(made.values_list("pk", flat=True))
        Checkpoint.objects.filter(pk__in=parents).update(**values)
    if checkpoint.serve_when_checked and checkpoint.verdict != REFUSED and not checkpoint.is_served:
        promote(checkpoint, checkpoint.imported_by)


def check_again(checkpoint: Checkpoint) -> Checkpoint:
    """Let a refused checkpoint be checked anew: its folder, the machine's memory or the software may have changed.

    Raises Conflict unless it is refused.
    """
    with transaction.atomic():
        asked = Checkpoint.objects.filter(pk=checkpoint.pk, verdict=REFUSED).update(
            verdict=WAITING, verdict_reason="", check_requested_at=Now(), check_queued_at=None, check_heartbeat_at=None
        )
        checkpoint.refresh_from_db()
        if not asked:
            raise Conflict(_("%(checkpoint)s is not refused, so it is not checked again.") % {"checkpoint": checkpoint})
        checks.send(checkpoint.pk)
    return checkpoint
