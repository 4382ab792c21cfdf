"""Import of checkpoints, and the results of their checks."""

from pathlib import Path
from typing import Any

from django.db import transaction
from django.db.models.functions import Now
from django.utils.translation import gettext as _

from feedback import audit
from feedback.actions import members
from feedback.errors import Conflict, Invalid
from feedback.models import Project, Source, User
from training.checkpoints import checks, disk
from training.checkpoints.checks import Verdict
from training.checkpoints.files import check_model
from training.checkpoints.promotions import check_in_use, lock_project, promote, read_state
from training.models import Checkpoint

WAITING: Any = Checkpoint.Verdict.WAITING
REFUSED: Any = Checkpoint.Verdict.REFUSED


def check_may_import(user: User) -> None:
    """Raise Forbidden unless the user is an administrator: a person who may name paths can read every model here."""
    members.check_administrator(user, _("Only administrators of this site may import models."))


def import_checkpoint(
    project: Project,
    path_or_hub_id: str,
    label: str,
    serve: bool = False,
    actor: User | None = None,
    may_fetch: bool = True,
    verdict: Verdict | None = None,
) -> Checkpoint:
    """Create a checkpoint of a causal language model: a Hugging Face folder on this machine, or a hub id.

    The folder is not copied. Without a verdict the checkpoint waits for its check by a worker; `serve` promotes it
    after that. Raises Invalid if the model cannot be used, Conflict if the label is taken.
    """
    label = label.strip()
    if not label or len(label) > 200 or label.startswith("round-"):
        raise Invalid(_('The label must have 1 to 200 characters and must not start with "round-".'))
    path = check_model(path_or_hub_id, may_fetch)
    sizes = disk.sizes_of({"model": [Path(path)]}, follows_links=True)
    with transaction.atomic():
        source, _is_new = Source.objects.get_or_create(
            project=project, name=label, defaults={"kind": Source.Kind.CHECKPOINT}
        )
        if source.kind == Source.Kind.PERSON or hasattr(source, "checkpoint"):
            raise Conflict(
                _('This project already has a checkpoint or person "%(label)s": choose another label.')
                % {"label": label}
            )
        # Completions that were imported before their model have a source of another kind.
        Source.objects.filter(pk=source.pk).update(kind=Source.Kind.CHECKPOINT)
        imported = Checkpoint.objects.create(
            project=project,
            source=source,
            kind=Checkpoint.Kind.IMPORTED,
            path=path,
            file_sizes=sizes,
            serve_when_checked=serve,
            imported_by=actor,
        )
        values = {"path": path, "serve": serve}
        audit.record("checkpoint.import", project, imported, after=values, actor=actor)
        if serve:  # the latest decision wins: no other waiting checkpoint is served later
            project.checkpoints.exclude(pk=imported.pk).update(serve_when_checked=False)
        if verdict is None:
            checks.send(imported.pk)
        else:
            settle_check(imported, verdict)
    return imported


@transaction.atomic
def settle_check(checkpoint: Checkpoint, verdict: Verdict) -> None:
    """Store a verdict for a checkpoint and its descendants, and promote the checkpoint if that was asked for.

    Does nothing if the checkpoint does not wait for a check.
    """
    lock_project(checkpoint.project)
    values = {"verdict": verdict.stored, "verdict_reason": verdict.reason, "check_heartbeat_at": None}
    settled = Checkpoint.objects.filter(pk=checkpoint.pk, verdict=WAITING).update(**values)
    checkpoint.refresh_from_db()
    if not settled:
        return
    parents = [checkpoint.pk]
    while parents:
        children = Checkpoint.objects.filter(parent__in=parents, kind=Checkpoint.Kind.ROUND, verdict=WAITING)
        parents = list(children.values_list("pk", flat=True))
        Checkpoint.objects.filter(pk__in=parents).update(**values)
    if checkpoint.serve_when_checked and checkpoint.verdict != REFUSED and not checkpoint.is_served:
        promote(checkpoint, checkpoint.imported_by)


def check_again(checkpoint: Checkpoint) -> Checkpoint:
    """Send a refused checkpoint to another check: its folder, the software or the memory may have changed.

    Raises Conflict unless it is refused and in use.
    """
    with transaction.atomic():
        lock_project(checkpoint.project)
        read_state(checkpoint)
        check_in_use(checkpoint)
        is_updated = Checkpoint.objects.filter(pk=checkpoint.pk, verdict=REFUSED).update(
            verdict=WAITING, verdict_reason="", check_requested_at=Now(), check_queued_at=None, check_heartbeat_at=None
        )
        checkpoint.refresh_from_db()
        if not is_updated:
            raise Conflict(_("%(checkpoint)s is not refused, so it is not checked again.") % {"checkpoint": checkpoint})
        audit.record("checkpoint.check", checkpoint.project, checkpoint)
        checks.send(checkpoint.pk)
    return checkpoint
