"""Promotion and roll-back: the served checkpoint, and the order of the comparisons."""

from typing import Any

from django.db import transaction
from django.db.models import Max, QuerySet
from django.utils.translation import gettext as _

from feedback import audit, webhooks
from feedback.errors import Conflict
from feedback.models import Comparison, Project, Source, Trial, User
from training import guards
from training.models import Checkpoint, Promotion

WAITING: Any = Checkpoint.Verdict.WAITING
REFUSED: Any = Checkpoint.Verdict.REFUSED


def served(project: Project) -> Checkpoint:
    """Return the served checkpoint, which rounds start from. Raise Conflict if there is none."""
    checkpoint = project.checkpoints.filter(is_served=True).select_related("source").first()
    if checkpoint is None:
        if waiting := project.checkpoints.filter(verdict=WAITING, serve_when_checked=True).first():
            check_usable(waiting)
        raise Conflict(_("No checkpoint is served yet: import a model, or promote a checkpoint."))
    return checkpoint


def check_usable(checkpoint: Checkpoint) -> None:
    """Raise Conflict unless the checkpoint may be trained, tried and served: it is not retired, and was found exact."""
    check_in_use(checkpoint)
    if checkpoint.verdict == REFUSED:
        raise Conflict(
            _("%(checkpoint)s cannot be used: %(reason)s")
            % {"checkpoint": checkpoint, "reason": checkpoint.verdict_reason}
        )
    if checkpoint.verdict == WAITING:
        raise Conflict(
            _("%(checkpoint)s is not checked yet: wait until a worker has checked that it is computed exactly here.")
            % {"checkpoint": checkpoint}
        )


def check_in_use(checkpoint: Checkpoint) -> None:
    """Raise Conflict if the checkpoint is retired."""
    if checkpoint.files_deleted_at is not None:
        raise Conflict(
            _("%(checkpoint)s is retired, and its files are deleted: use another checkpoint.")
            % {"checkpoint": checkpoint}
        )
    if checkpoint.retired_at is not None:
        raise Conflict(
            _("%(checkpoint)s is retired: bring it back first, or use another checkpoint.") % {"checkpoint": checkpoint}
        )


def usable_in(project: Project) -> QuerySet[Checkpoint]:
    """Return the checkpoints that may be trained, tried and served (`Checkpoint.is_usable`)."""
    verdicts = [Checkpoint.Verdict.EXACT_FAST, Checkpoint.Verdict.EXACT_GENERIC]
    return project.checkpoints.filter(verdict__in=verdicts, retired_at__isnull=True)


def read_state(checkpoint: Checkpoint) -> None:
    """Read again what another transaction may have changed before this one locked the project."""
    checkpoint.refresh_from_db(
        fields=["is_served", "verdict", "verdict_reason", "retired_at", "files_deleted_at", "folders_to_remove"]
    )


@transaction.atomic
def promote(
    checkpoint: Checkpoint, actor: User | None, confirmed: bool = False, trial: Trial | None = None
) -> Promotion:
    """Serve this checkpoint, and move its unranked comparisons to the front of the queue.

    confirmed: also if a guard fell in its round. trial: the one whose votes the promotion follows.

    Raises Conflict if it is already served, retired, refused, or not checked yet.
    """
    current = _current(checkpoint.project)
    read_state(checkpoint)
    if current == checkpoint:
        raise Conflict(_("%(checkpoint)s is served already.") % {"checkpoint": checkpoint})
    check_usable(checkpoint)
    if not confirmed and (falls := guards.fallen(checkpoint)):
        raise Conflict(
            _("%(checkpoint)s is worse than its base: %(guards)s To serve it all the same, confirm the promotion.")
            % {"checkpoint": checkpoint, "guards": guards.warning(falls)}
        )
    return _serve(checkpoint, current, actor, is_roll_back=False, trial=trial)


@transaction.atomic
def roll_back(project: Project, actor: User | None) -> Promotion:
    """Serve the checkpoint that was served before the last promotion. Raise Conflict if there is none.

    Two roll-backs in a row undo two promotions. Retired checkpoints are passed over.
    """
    current = _current(project)
    earlier = served_before(project)
    if current is None or earlier is None:
        raise Conflict(_("There is nothing to roll back to: no other checkpoint was served before this one."))
    check_usable(earlier)
    return _serve(earlier, current, actor, is_roll_back=True)


def served_before(project: Project) -> Checkpoint | None:
    """Return the checkpoint that a roll-back would serve: the one before the last promotion that still stands.

    Retired ones are passed over, and so are earlier promotions of the served one, which would change nothing.
    """
    standing: list[Checkpoint] = []
    promotions = Promotion.objects.filter(checkpoint__project=project).order_by("pk")
    for promotion in promotions.select_related("checkpoint__source"):
        if promotion.is_roll_back:
            standing.pop()
            # A roll-back that passed over retired checkpoints undid their promotions, too.
            while standing and standing[-1] != promotion.checkpoint:
                standing.pop()
        else:
            standing.append(promotion.checkpoint)
    current = standing[-1] if standing else None
    earlier = (one for one in reversed(standing[:-1]) if one.retired_at is None and one != current)
    return next(earlier, None)


def lock_project(project: Project) -> None:
    """Lock the project, so that promotions, ends of checks and starts of rounds take turns."""
    Project.objects.select_for_update(no_key=True).get(pk=project.pk)


def _current(project: Project) -> Checkpoint | None:
    lock_project(project)
    return project.checkpoints.filter(is_served=True).first()


def _serve(
    checkpoint: Checkpoint,
    current: Checkpoint | None,
    actor: User | None,
    is_roll_back: bool,
    trial: Trial | None = None,
) -> Promotion:
    # The latest decision wins: a model that still waits for its check must not replace this one later.
    checkpoint.project.checkpoints.update(is_served=False, serve_when_checked=False)
    checkpoint.is_served, checkpoint.serve_when_checked = True, False
    checkpoint.save(update_fields=["is_served", "serve_when_checked"])
    put_first(checkpoint.source)
    values = {"checkpoint": str(checkpoint), "replaced": str(current) if current else None, "rolled_back": is_roll_back}
    project = checkpoint.project
    webhooks.emit(project, "checkpoint.promoted", f"project:{project.slug}", {"project": project.slug, **values})
    audit.record(
        "checkpoint.roll_back" if is_roll_back else "checkpoint.promote",
        checkpoint.project,
        checkpoint,
        before={"served": str(current) if current else None},
        after={"served": str(checkpoint)} | ({"trial": trial.number} if trial else {}),
        actor=actor,
    )
    return Promotion.objects.create(
        checkpoint=checkpoint, replaced=current, actor=actor, is_roll_back=is_roll_back, trial=trial
    )


def next_priority(project: Project) -> int:
    """Return a priority above that of all comparisons that wait to be ranked."""
    waiting = Comparison.objects.filter(project=project, open_slots__gt=0, trial__isnull=True)
    highest = waiting.aggregate(highest=Max("priority"))["highest"]
    return 0 if highest is None else min(highest + 1, 32_767)


def put_first(source: Source) -> None:
    """Raise the priority of the source's unranked comparisons above all others, which stay in the queue.

    Rankings of the served checkpoint's completions are worth more than those of older completions. Trials have a queue
    and an order of their own.
    """
    waiting = Comparison.objects.filter(project=source.project, open_slots__gt=0, trial__isnull=True)
    promoted = waiting.filter(items__completion__source=source)
    others = waiting.exclude(pk__in=promoted.values("pk"))
    highest = others.aggregate(highest=Max("priority"))["highest"]
    if highest is not None:
        first = min(highest + 1, 32_767)
        Comparison.objects.filter(pk__in=promoted.values("pk"), priority__lt=first).update(priority=first)
