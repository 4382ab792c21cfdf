"""Checkpoints: imported, served, rolled back."""

from django.db import transaction
from django.db.models import Max
from django.utils.translation import gettext as _

from feedback.errors import Conflict, Invalid
from feedback.models import Comparison, Project, Source, User
from training.checkpoint_files import check_model
from training.models import Checkpoint, Promotion


def served(project: Project) -> Checkpoint:
    """The checkpoint that rounds start from. Raises Conflict when none is served."""
    found = project.checkpoints.filter(is_served=True).select_related("source").first()
    if found is None:
        raise Conflict(_("No checkpoint is served yet: import a model, or promote a checkpoint."))
    return found


def import_checkpoint(
    project: Project,
    path_or_hub_id: str,
    label: str,
    serve: bool = False,
    actor: User | None = None,
    may_fetch: bool = True,
) -> Checkpoint:
    """Take in a causal language model: a Hugging Face folder on this machine, which stays where it is, or a hub id.

    Raises Invalid with a sentence when it cannot be used, Conflict when the label is taken.
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
        imported = Checkpoint.objects.create(project=project, source=source, kind=Checkpoint.Kind.IMPORTED, path=path)
        if serve:
            promote(imported, actor)
    return imported


@transaction.atomic
def promote(checkpoint: Checkpoint, actor: User | None) -> Promotion:
    """Serve this checkpoint from now on; its unranked comparisons come first. Raises Conflict if it is served."""
    current = _current(checkpoint.project)
    if current == checkpoint:
        raise Conflict(_("%(checkpoint)s is served already.") % {"checkpoint": checkpoint})
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


def _current(project: Project) -> Checkpoint | None:
    Project.objects.select_for_update(no_key=True).get(pk=project.pk)  # two promotions at once take turns
    return project.checkpoints.filter(is_served=True).first()


def _serve(checkpoint: Checkpoint, current: Checkpoint | None, actor: User | None, is_roll_back: bool) -> Promotion:
    Checkpoint.objects.filter(project=checkpoint.project, is_served=True).update(is_served=False)
    checkpoint.is_served = True
    checkpoint.save(update_fields=["is_served"])
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
