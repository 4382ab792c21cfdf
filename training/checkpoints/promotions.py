"""Checkpoints: imported, served, rolled back."""

from typing import Any

from django.db import transaction
from django.db.models import Max
from django.utils.translation import gettext as _

from feedback.errors import Conflict
from feedback.models import Comparison, Project, Source, User
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


def lock_project(project: Project) -> None:
    """Two promotions at once take turns, and so do a check's end and a round's."""
    Project.objects.select_for_update(no_key=True).get(pk=project.pk)


def _current(project: Project) -> Checkpoint | None:
    lock_project(project)
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
