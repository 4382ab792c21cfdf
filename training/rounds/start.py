"""Start of rounds: the conditions, the settings, and the new row."""

from django.db import transaction
from django.db.models import Max, QuerySet
from django.utils.translation import gettext as _

from feedback.errors import Conflict, Invalid
from feedback.export import ranking_record
from feedback.models import Project, Prompt, Ranking, User
from feedback.models.flags import trainable
from training import checkpoints
from training.checkpoints.files import positions_of
from training.models import Checkpoint, LoopSettings, Round
from training.rounds import settings as round_settings
from training.rounds.lifecycle import send
from training.rounds.settings import Sections


def start_round(project: Project, actor: User | None, overrides: Sections | None = None) -> Round:
    """Create a waiting round that learns from all current rankings, or from other reward terms alone.

    Raises Conflict while another round is active or nothing is served. Raises Invalid if there is nothing to learn
    from or a setting cannot be used.
    """
    return _create(project, actor, overrides, learns=True)


def start_sampling(
    project: Project, actor: User | None, overrides: Sections | None = None, checkpoint: Checkpoint | None = None
) -> Round:
    """Create a waiting round without training: the checkpoint (default: the served one) writes completions to rank.

    If it is the first round of a project, its number is 0. Raises as `start_round` does, and Invalid if there are no
    prompts.
    """
    return _create(project, actor, overrides, base=checkpoint, learns=False)


def check_can_start(project: Project, learns: bool = True) -> None:
    """Raise the error that a start with the project's own settings would raise now."""
    _check_is_free(project)
    _check_data(project, settings_now(project) if learns else None)


def _check_is_free(project: Project, base: Checkpoint | None = None) -> None:
    """Raise Conflict if no round of any kind can start from `base` (default: the served checkpoint)."""
    if project.archived_at is not None:
        raise Conflict(_("This project is archived: no new round can start in it."))
    if active := project.rounds.filter(status__in=Round.ACTIVE).first():
        raise Conflict(
            _("Round %(number)s is still %(status)s: wait until it ends, or cancel it first.")
            % {"number": active.number, "status": active.status}
        )
    served = checkpoints.served(project)
    checkpoints.check_usable(base or served)


def _check_data(project: Project, settings: Sections | None) -> None:
    """Raise Invalid if the data that a round with these settings needs is missing. None: a round without training."""
    prompts = Prompt.objects.filter(project=project)
    if settings and round_settings.uses_reward_model(settings["ppo"]) and not trainable_rankings(project).exists():
        if _standing_rankings(project).exists():
            raise Invalid(_("All rankings have flags so far, and rounds do not learn from rankings with flags."))
        raise Invalid(_("There are no rankings to learn from yet: rank some comparisons first."))
    if not prompts.exists():
        raise Invalid(_("There are no prompts to answer yet: add some first."))
    terms = round_settings.comparing_terms(settings["ppo"]) if settings else []
    if terms and not prompts.filter(split=Prompt.Split.TRAIN).exclude(references=[]).exists():
        raise Invalid(
            _('No training prompt has reference answers, which the reward term "%(term)s" needs: add some.')
            % {"term": terms[0]}
        )


def _create(
    project: Project, actor: User | None, overrides: Sections | None, *, learns: bool, base: Checkpoint | None = None
) -> Round:
    cutoff = ranking_record.sequence_cutoff(project)
    with transaction.atomic():
        # The lock makes concurrent starts take turns: the second one sees the first one's round and is refused.
        Project.objects.select_for_update(no_key=True).get(pk=project.pk)
        _check_is_free(project, base)
        last = project.rounds.aggregate(last=Max("number"))["last"]
        number = (1 if learns else 0) if last is None else last + 1
        base = base or checkpoints.served(project)
        sections = (_defaults(project), project_settings(project), overrides or {})
        settings = round_settings.resolve(*sections, seed=number, positions=positions_of(base.path))
        _check_data(project, settings if learns else None)
        rankings = ranking_record.counting(project, cutoff).filter(trainable(project))
        learns_from_rankings = learns and round_settings.uses_reward_model(settings["ppo"])
        created = Round.objects.create(
            project=project,
            number=number,
            learns=learns,
            base=base,
            started_by=actor,
            settings=settings,
            cutoff=cutoff,
            ranking_count=rankings.count() if learns_from_rankings else 0,
        )
        send(created.pk)
    return created


def trainable_rankings(project: Project) -> QuerySet[Ranking]:
    """Return the rankings that a round could learn from now.

    Left out are gold comparisons, discarded rankings, and rankings with a flag that the project defines.
    """
    return _standing_rankings(project).filter(trainable(project))


def _standing_rankings(project: Project) -> QuerySet[Ranking]:
    return Ranking.objects.counting_in(project).filter(comparison__gold_ranks__isnull=True)


def project_settings(project: Project) -> Sections:
    """Return the sections of settings that the project's loop overrides."""
    loop = LoopSettings.objects.filter(project=project).first()
    return loop.settings if loop else {}


def settings_now(project: Project) -> Sections:
    """Return all settings of a round that would start now. Raise Invalid if the project's own cannot be used."""
    served = project.checkpoints.filter(is_served=True).first()
    positions = positions_of(served.path) if served else None
    return round_settings.resolve(_defaults(project), project_settings(project), seed=0, positions=positions)


def settings_of_repeat(earlier: Round) -> Sections:
    """Return the settings of an earlier round without its default seeds, so that a repeat samples differently."""
    sections = {section: dict(values) for section, values in earlier.settings.items()}
    for values in sections.values():
        if values.get("seed") == earlier.number:
            del values["seed"]
    return sections


def _defaults(project: Project) -> Sections:
    return {"round": {"weights": project.ranking_weights}}
