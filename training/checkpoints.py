"""Checkpoints: imported, served, rolled back."""

from typing import Any

from django.db import transaction
from django.db.models import Max
from django.db.models.functions import Now
from django.utils.translation import gettext as _

from feedback.errors import Conflict, Forbidden, Invalid
from feedback.models import Comparison, Project, Source, User
from training import model_checks
from training.checkpoint_files import check_model
from training.model_checks import Verdict
from training.models import Checkpoint, Promotion

WAITING: Any = Checkpoint.Verdict.WAITING
REFUSED: Any = Checkpoint.Verdict.REFUSED


def served(project: Project) -> Checkpoint:
    """The checkpoint that rounds start from. Raises Conflict when none is served."""
    found = project.checkpoints.filter(is_served=True).select_related("source").first()
    if found is None:
        if waiting := project.checkpoints.filter(verdict=WAITING, serve_when_checked=True).first():
            check_usable(waiting)
        raise Conflict(_("No checkpoint is served yet: import a model, or promote a checkpoint."))
    return found


def check_usable(checkpoint: Checkpoint) -> None:
    """Raises Conflict unless the model's check found it exact: nothing is trained from, or served by, another."""
    if checkpoint.verdict == REFUSED:
        raise Conflict(
            _("%(checkpoint)s cannot be used: %(reason)s")
            % {"checkpoint": checkpoint, "reason": checkpoint.verdict_reason}
        )
    if checkpoint.verdict == WAITING:
        raise Conflict(
            _("%(checkpoint)s is not checked yet: wait until a worker has found whether it is computed exactly here.")
            % {"checkpoint": checkpoint}
        )


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
            model_checks.send(imported.pk)
        else:
            settle_check(imported, verdict)
    return imported


@transaction.atomic
def settle_check(checkpoint: Checkpoint, verdict: Verdict) -> None:
    """Store what the check found, serve the checkpoint if that was asked for, and tell those made from it by rounds.

    Does nothing if it does not wait for a check.
    """
    _lock(checkpoint.project)
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
        model_checks.send(checkpoint.pk)
    return checkpoint


@transaction.atomic
def promote(checkpoint: Checkpoint, actor: User | None) -> Promotion:
    """Serve this checkpoint from now on; its unranked comparisons come first.

    Raises Conflict if it is served, refused, or not checked yet.
    """
    current = _current(checkpoint.project)
    if current == checkpoint:
        raise Conflict(_("%(checkpoint)s is served already.") % {"checkpoint": checkpoint})
    check_usable(checkpoint)
    return _serve(checkpoint, current, actor, is_roll_back=False)


@transaction.atomic
def roll_back(project: Project, actor: User | None) -> Promotion:
    """Serve again what was served before the last promotion. Raises Conflict when there is nothing before it.

    Twice in a row goes back two promotions, not back and forth.
    """
    current = _current(project)
    earlier = served_before(project)
    if current is None or earlier is None:
        raise Conflict(_("There is nothing to roll back to: no other checkpoint was served before this one."))
    check_usable(earlier)
    return _serve(earlier, current, actor, is_roll_back=True)


def served_before(project: Project) -> Checkpoint | None:
    """What a roll-back would serve: the record of promotions, without those that were rolled back."""
    standing: list[Checkpoint] = []
    promotions = Promotion.objects.filter(checkpoint__project=project).order_by("pk")
    for promotion in promotions.select_related("checkpoint__source"):
        if promotion.is_roll_back:
            standing.pop()
        else:
            standing.append(promotion.checkpoint)
    return standing[-2] if len(standing) > 1 else None


def _lock(project: Project) -> None:
    """Two promotions at once take turns, and so do a check's end and a round's."""
    Project.objects.select_for_update(no_key=True).get(pk=project.pk)


def _current(project: Project) -> Checkpoint | None:
    _lock(project)
    return project.checkpoints.filter(is_served=True).first()


def _serve(checkpoint: Checkpoint, current: Checkpoint | None, actor: User | None, is_roll_back: bool) -> Promotion:
    # The last decision holds: a model that is still to be checked does not take this one's place later.
    checkpoint.project.checkpoints.update(is_served=False, serve_when_checked=False)
    checkpoint.is_served, checkpoint.serve_when_checked = True, False
    checkpoint.save(update_fields=["is_served", "serve_when_checked"])
    put_first(checkpoint.source)
    return Promotion.objects.create(checkpoint=checkpoint, replaced=current, actor=actor, is_roll_back=is_roll_back)


def next_priority(project: Project) -> int:
    """A priority above that of everything that still waits to be ranked."""
    waiting = Comparison.objects.filter(project=project, open_slots__gt=0)
    highest = waiting.aggregate(highest=Max("priority"))["highest"]
    return 0 if highest is None else min(highest + 1, 32_767)


def put_first(source: Source) -> None:
    """Let the source's unranked comparisons come before all others, which stay in the queue behind them.

    People should judge what the model says now; what an older one said is still worth a ranking when that is done.
    """
    mine = Comparison.objects.filter(project=source.project, open_slots__gt=0, items__completion__source=source)
    others = Comparison.objects.filter(project=source.project, open_slots__gt=0).exclude(pk__in=mine.values("pk"))
    highest = others.aggregate(highest=Max("priority"))["highest"]
    if highest is not None:
        first = min(highest + 1, 32_767)
        Comparison.objects.filter(pk__in=mine.values("pk"), priority__lt=first).update(priority=first)
