"""Start of rounds: the conditions, the settings, and the new row."""

from django.db import transaction
from django.db.models import Max
from django.utils.translation import gettext as _

from feedback import audit
from feedback.errors import Conflict
from feedback.export import ranking_record
from feedback.models import Project, User
from training import checkpoints
from training.checkpoints.files import positions_of
from training.models import Checkpoint, LoopSettings, Round
from training.rounds import inputs, mixtures, named_checkpoints, simulated_user
from training.rounds import settings as round_settings
from training.rounds.estimates import estimate_of
from training.rounds.inputs.demonstrations import trainable_demonstrations
from training.rounds.inputs.rankings import learnable, trainable_rankings
from training.rounds.lifecycle import send
from training.rounds.recipes import DEFAULT, RECIPES, recipe_of
from training.rounds.recipes.description import Counts, Recipe, Sections
from training.rounds.recipes.parts import sampling_only
from training.rounds.sources import SERVED, with_served, without_served


def start_round(project: Project, actor: User | None, overrides: Sections | None = None) -> Round:
    """Create a waiting round that learns by its recipe from the present data of the project.

    By a recipe that does not learn, it evaluates the served checkpoint, or compares the checkpoints that it names.

    Raises Conflict while another round is active or nothing is served. Raises Invalid if there is nothing to learn
    from or a setting cannot be used.
    """
    return _create(project, actor, overrides, learns=True)


def start_sampling(
    project: Project, actor: User | None, overrides: Sections | None = None, checkpoint: Checkpoint | None = None
) -> Round:
    """Create a waiting round without training: the checkpoint (default: the served one) writes completions to rank.

    By a recipe that does not learn, the checkpoint is evaluated. The first round of a project that only samples has the
    number 0. Raises as `start_round` does, and Invalid if there are no prompts.
    """
    return _create(project, actor, overrides, base=checkpoint, learns=False)


def check_can_start(project: Project, learns: bool = True, recipe: str | None = None) -> None:
    """Raise the error that a start with the project's own settings, and its own or another recipe, would raise now."""
    _check_is_free(project)
    _check_data(project, settings_now(project, recipe) if learns else None)


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
    recipe = recipe_of(settings or {})
    inputs.check(
        project, recipe, settings or {}, recipe.jobs(settings, counts_of(project)) if settings else sampling_only({})
    )


def counts_of(project: Project) -> Counts:
    """Return the numbers of rankings and demonstrations that a round could learn from now."""
    return Counts(trainable_rankings(project).count(), trainable_demonstrations(project).count())


def _create(
    project: Project, actor: User | None, overrides: Sections | None, *, learns: bool, base: Checkpoint | None = None
) -> Round:
    cutoff = ranking_record.sequence_cutoff(project)
    with transaction.atomic():
        # The lock makes concurrent starts take turns: the second one sees the first one's round and is refused.
        checkpoints.lock_project(project)
        if base is not None:
            checkpoints.read_state(base)
        created = prepared(project, overrides, learns=learns, base=base)
        created.started_by, created.cutoff = actor, cutoff
        if created.learns_from_rankings:
            created.ranking_count = ranking_record.counting(project, cutoff).filter(learnable(project)).count()
        created.estimate = estimate_of(created).to_json()
        created.save()
        values = {"recipe": created.recipe.name, "base": str(created.base), "learns": created.learns}
        audit.record("round.start", project, created, after=values, actor=actor)
        send(created.pk)
    return created


def prepared(
    project: Project, overrides: Sections | None = None, *, learns: bool = True, base: Checkpoint | None = None
) -> Round:
    """Return the round that would start now, without its cut-off and not stored. Raise as `start_round` does."""
    _check_is_free(project, base)
    made = described(project, overrides, learns=learns, base=base)
    _check_data(project, None if made.only_samples else made.settings)
    simulated_user.check(project, made.settings)
    mixtures.check(made)
    return made


def described(
    project: Project, overrides: Sections | None = None, *, learns: bool = True, base: Checkpoint | None = None
) -> Round:
    """Return the round with these settings, not stored, even if it cannot start now.

    Raise Conflict if nothing is served, and Invalid if a setting cannot be used.
    """
    sections = (_defaults(project), project_settings(project), overrides or {})
    recipe = round_settings.recipe_in(*sections)
    only_samples, learns = recipe.learns and not learns, recipe.learns and learns
    last = project.rounds.aggregate(last=Max("number"))["last"]
    number = (0 if only_samples else 1) if last is None else last + 1
    named = named_checkpoints.checkpoints_of(project, sections) if recipe.names_checkpoints else []
    base = next(iter(named), base) or checkpoints.served(project)
    counts, positions = counts_of(project), named_checkpoints.positions_of_all(named or [base])
    settings = round_settings.resolve(*sections, seed=number, positions=positions, counts=counts)
    if SERVED in settings["round"]["sources"]:
        settings["round"]["sources"] = with_served(settings["round"]["sources"], str(checkpoints.served(project)))
    made = Round(
        project=project,
        number=number,
        learns=learns,
        base=base,
        settings=settings,
        demonstration_count=counts.demonstrations if learns else 0,
        ranking_count=counts.rankings,
    )
    if not made.learns_from_rankings:
        made.ranking_count = 0
    return made


def project_settings(project: Project) -> Sections:
    """Return the sections of settings that the project's loop overrides."""
    loop = LoopSettings.objects.filter(project=project).first()
    return loop.settings if loop else {}


def project_recipe(project: Project) -> Recipe:
    """Return the recipe of the project's rounds where the start names no other."""
    return round_settings.chosen_recipe(project_settings(project), RECIPES[DEFAULT])


def settings_now(project: Project, recipe: str | None = None, seed: int = 0) -> Sections:
    """Return all settings of a round that would start now, with another recipe than the project's if one is named.

    seed: what the number of the round would be. Raise Invalid if the project's own cannot be used.
    """
    served = project.checkpoints.filter(is_served=True).first()
    positions = positions_of(served.path) if served else None
    chosen: Sections = {"round": {"recipe": recipe}} if recipe is not None else {}
    sections = (_defaults(project), project_settings(project), chosen)
    return round_settings.resolve(*sections, seed=seed, positions=positions, counts=counts_of(project))


def settings_of_repeat(earlier: Round) -> Sections:
    """Return the settings of an earlier round without its default seeds, so that a repeat samples differently."""
    sections = {section: dict(values) for section, values in earlier.settings.items()}
    for values in sections.values():
        if values.get("seed") == earlier.number:
            del values["seed"]
    if "sources" in sections["round"]:
        sections["round"]["sources"] = without_served(sections["round"]["sources"])
    return sections


def _defaults(project: Project) -> Sections:
    loop = LoopSettings.objects.filter(project=project).first() or LoopSettings()
    return {
        "round": {
            "weights": project.ranking_weights,
            "anchors": project.anchors,
            "trial_worthwhile_share": loop.worthwhile_share,
        }
    }
