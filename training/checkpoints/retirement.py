"""Retirement of checkpoints, and the deletion of the files of retired ones.

A retired checkpoint is neither served, nor tried, nor the base of a round, until it is brought back. What people said
of its completions stays, and rounds go on learning from it. Its files can be deleted, which cannot be undone.

Each function locks the project first, as promotions, trials and starts of rounds do.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from django.db import transaction
from django.db.models.functions import Now
from django.template.defaultfilters import filesizeformat
from django.utils import formats, timezone
from django.utils.translation import gettext as _

from feedback import audit
from feedback.errors import Conflict, Invalid
from feedback.models import Source, Trial, User
from training import paths
from training.checkpoints import disk
from training.checkpoints.files import check_model
from training.checkpoints.promotions import check_in_use, lock_project, read_state
from training.models import Checkpoint, LoopSettings, Round
from training.rounds.recipes.description import NEWEST_REWARD_MODEL
from training.rounds.sources import read_sources


@transaction.atomic
def retire(checkpoint: Checkpoint, actor: User | None) -> Checkpoint:
    """Retire a checkpoint. Raise Conflict if it is retired, served, in an open trial, or needed by a round.

    A check that would serve it does not serve it any more.
    """
    lock_project(checkpoint.project)
    read_state(checkpoint)
    if refusal := reason_not_to_retire(checkpoint):
        raise Conflict(refusal)
    _set_retired(checkpoint, retired_at=Now(), retired_by=actor, serve_when_checked=False)
    audit.record("checkpoint.retire", checkpoint.project, checkpoint, actor=actor)
    return checkpoint


@transaction.atomic
def restore(checkpoint: Checkpoint) -> Checkpoint:
    """Bring a retired checkpoint back. Raise Conflict if it is not retired, Invalid if its files are not there."""
    lock_project(checkpoint.project)
    read_state(checkpoint)
    if checkpoint.retired_at is None:
        raise Conflict(_("%(checkpoint)s is not retired.") % {"checkpoint": checkpoint})
    if checkpoint.files_deleted_at is not None:
        raise Conflict(
            _("The files of %(checkpoint)s were deleted on %(date)s, so it cannot be brought back.")
            % {"checkpoint": checkpoint, "date": _date(checkpoint)}
        )
    try:
        check_model(checkpoint.path, may_fetch=False)
    except Invalid as error:
        raise Invalid(
            _("%(checkpoint)s cannot be brought back: %(reason)s") % {"checkpoint": checkpoint, "reason": error.message}
        ) from error
    _set_retired(checkpoint, retired_at=None, retired_by=None)
    audit.record("checkpoint.restore", checkpoint.project, checkpoint)
    return checkpoint


@transaction.atomic
def delete_files(checkpoint: Checkpoint, actor: User | None, confirmed: bool = False) -> Checkpoint:
    """Mark the files of a retired checkpoint as deleted, and let a worker remove them. It cannot be undone.

    Raises Conflict unless it is confirmed, made by a round, retired, checked, and nothing else needs the files.
    """
    lock_project(checkpoint.project)
    read_state(checkpoint)
    if refusal := reason_not_to_delete(checkpoint) or _shared_sentence(checkpoint):
        raise Conflict(refusal)
    if not confirmed:
        raise Conflict(
            _("This deletes the files of %(checkpoint)s (%(size)s), which cannot be undone: confirm it.")
            % {"checkpoint": checkpoint, "size": size_text(checkpoint)}
        )
    folders = [folder for of_part in disk.folders_of(checkpoint).values() for folder in of_part]
    Checkpoint.objects.filter(pk=checkpoint.pk).update(
        files_deleted_at=Now(),
        files_deleted_by=actor,
        folders_to_remove=[paths.stored(str(folder)) for folder in folders],
    )
    checkpoint.refresh_from_db(fields=["files_deleted_at", "files_deleted_by", "folders_to_remove"])
    values = {"folders": checkpoint.folders_to_remove}
    audit.record("checkpoint.delete_files", checkpoint.project, checkpoint, before=values, actor=actor)
    disk.send()
    return checkpoint


def reason_not_to_retire(checkpoint: Checkpoint) -> str:
    """Return the sentence why the checkpoint cannot be retired now, or ""."""
    names = {"checkpoint": checkpoint}
    if checkpoint.retired_at is not None:
        return _("%(checkpoint)s is retired already.") % names
    if checkpoint.is_served:
        return _("%(checkpoint)s is served: promote another checkpoint first.") % names
    trials = Trial.objects.filter(ended_at__isnull=True, trial_sources__source=checkpoint.source_id)
    if (trial := trials.first()) is not None:
        return _("%(checkpoint)s is in trial %(number)s, which is open: end it first.") % {
            "checkpoint": checkpoint,
            "number": trial.number,
        }
    active = Round.objects.filter(project=checkpoint.project_id, status__in=Round.ACTIVE).first()
    if active is not None and needs(active, checkpoint):
        return _("Round %(number)s needs %(checkpoint)s: wait until it ends, or cancel it first.") % {
            "checkpoint": checkpoint,
            "number": active.number,
        }
    loop = LoopSettings.objects.filter(project=checkpoint.project_id).first()
    if loop is not None and str(checkpoint) in names_in(loop.settings):
        return _("The settings of this project's rounds name %(checkpoint)s: change them first.") % names
    return ""


def reason_not_to_delete(checkpoint: Checkpoint) -> str:
    """Return the sentence why the files of the checkpoint cannot be deleted now, or "". It reads no file system.

    Whether another checkpoint uses the files is only looked up at the deletion.
    """
    names = {"checkpoint": checkpoint, "path": checkpoint.path}
    if checkpoint.files_deleted_at is not None:
        return _("The files of %(checkpoint)s were deleted on %(date)s.") % {
            "checkpoint": checkpoint,
            "date": _date(checkpoint),
        }
    if checkpoint.kind == Checkpoint.Kind.IMPORTED:
        return _("The files of an imported model are not Accord's: delete %(path)s yourself.") % names
    if checkpoint.retired_at is None:
        return _("Only files of a retired checkpoint can be deleted: retire %(checkpoint)s first.") % names
    if not disk.is_in_a_round(checkpoint):
        return _("%(path)s is not in the data folder's rounds: delete it yourself.") % names
    if checkpoint.verdict == Checkpoint.Verdict.WAITING:
        return _("%(checkpoint)s is not checked yet: its files can be deleted after its check.") % names
    newest = checkpoint.project.checkpoints.exclude(reward_model_path="").order_by("-pk").first()
    if newest == checkpoint:
        return (
            _("Evaluations score by the reward model of %(checkpoint)s, the newest one: wait for another round's.")
            % names
        )
    return ""


def needs(round_: Round, checkpoint: Checkpoint) -> bool:
    """Return whether the round starts from the checkpoint, tries it, or talks to it as a simulated user."""
    return round_.base_id == checkpoint.pk or str(checkpoint) in names_in(round_.settings)


def names_in(sections: Mapping[str, Any]) -> set[str]:
    """Return the names of checkpoints in settings: those of a trial or a mixture, and that of a simulated user."""
    names = {str(name) for name in sections.get("round", {}).get("checkpoints", [])}
    names |= {source.checkpoint for source in read_sources(sections.get("round", {}).get("sources", {}))} - {""}
    for values in sections.values():
        environment = values.get("environment")
        if isinstance(environment, dict) and environment.get("user") == "checkpoint":
            names.add(str(environment.get("model", "")))
    return names


def check_resumable(round_: Round) -> None:
    """Raise Conflict if a checkpoint that the round needs is retired, or the files of its reward model are deleted."""
    named = round_.project.checkpoints.filter(source__name__in=names_in(round_.settings))
    for checkpoint in named.select_related("source"):
        check_in_use(checkpoint)
    if any(NEWEST_REWARD_MODEL in job.models.values() for job in round_.jobs):
        newest = round_.newest_reward_model
        if newest is not None and newest.files_deleted_at is not None:
            check_in_use(newest)


def size_text(checkpoint: Checkpoint) -> str:
    """Return the size of the checkpoint's files for people, such as "1.2 GB"."""
    size = checkpoint.bytes_on_disk
    return _("size not known yet") if size is None else str(filesizeformat(size))


def _set_retired(checkpoint: Checkpoint, **values: Any) -> None:
    Checkpoint.objects.filter(pk=checkpoint.pk).update(**values)
    checkpoint.refresh_from_db(fields=list(values))
    Source.objects.filter(pk=checkpoint.source_id).update(is_retired=checkpoint.retired_at is not None)


def _date(checkpoint: Checkpoint) -> str:
    assert checkpoint.files_deleted_at is not None
    return formats.date_format(timezone.localtime(checkpoint.files_deleted_at), "DATE_FORMAT")


def _shared_sentence(checkpoint: Checkpoint) -> str:
    """Return the sentence that another checkpoint uses the files, or ""."""
    other = _sharing(checkpoint)
    if other is None:
        return ""
    if other.project_id == checkpoint.project_id:
        return _("%(other)s uses the same files.") % {"other": other}
    return _("A checkpoint of another project uses the same files.")


def _sharing(checkpoint: Checkpoint) -> Checkpoint | None:
    """Return another checkpoint, of any project, whose files are in one of this one's folders; or None."""
    folders = [os.path.realpath(folder) for of_part in disk.folders_of(checkpoint).values() for folder in of_part]
    others = Checkpoint.objects.exclude(pk=checkpoint.pk).filter(files_deleted_at__isnull=True)
    for other in others.select_related("source").iterator(chunk_size=500):
        used = [os.path.realpath(path) for path in (other.path, other.reward_model_path) if path]
        if any(Path(path).is_relative_to(folder) for path in used for folder in folders):
            return other
    return None
