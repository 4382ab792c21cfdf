"""The page of a project's loop, for managers: its rounds and checkpoints, and the forms that start and import them."""

from typing import Any

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_POST
from django_htmx.http import HttpResponseStopPolling

from feedback.actions import members
from feedback.errors import AccordError
from feedback.models import Membership, Project
from feedback.web.forms import checked
from training import checkpoints, reports, trials
from training.home import figures
from training.home.next_step import next_step, setup_steps, shows_setup
from training.models import Round
from training.rounds import named_checkpoints, schedule
from training.rounds import settings as round_settings
from training.rounds.recipes import RECIPES
from training.rounds.start import (
    counts_of,
    project_recipe,
    settings_now,
    settings_of_repeat,
    start_round,
    start_sampling,
)
from training.web import dialogue_fields
from training.web.forms import ImportForm, LoopForm, RoundForm
from training.web.presenters import reason_not_to_start, render_page
from training.web.views.checkpoints import checkpoint_rows


@login_required
@require_GET
def console(request: HttpRequest, slug: str) -> HttpResponse:
    """Show the console. `?again=<number>` opens the form of a new round with the settings of that round.

    `?recipe=<name>` opens the form of a new round of that recipe.
    """
    membership = members.manager_of(request.user, slug)
    again, recipe = request.GET.get("again"), request.GET.get("recipe")
    form = _round_form(membership.project, again, recipe) if "again" in request.GET or "recipe" in request.GET else None
    return _console(request, membership, form)


def _console(
    request: HttpRequest, membership: Membership, form: RoundForm | None = None, import_form: ImportForm | None = None
) -> HttpResponse:
    project = membership.project
    loop = reports.loop_of(project)
    form_is_open = form is not None
    form = form or _round_form(project)
    recipes, can_sample = _recipes(membership, form), not reason_not_to_start(project, learns=False)
    summary = figures.figures_of(project)
    state = figures.state_of(
        project,
        loop,
        summary,
        may_import=membership.user.is_staff,
        refusal=recipes["refusal"],
        can_sample=can_sample,
    )
    context = {
        **vars(loop),
        "figures": summary,
        "step": next_step(state),
        "setup": setup_steps(state) if shows_setup(state) else None,
        "rounds": reports.rounds_of(project),
        **checkpoint_rows(project),
        "open_trial": trials.open_trial(project),
        "form": form,
        "form_is_open": form_is_open,
        **recipes,
        "can_sample": can_sample,
        "loop_form": LoopForm(initial={"round_every": loop.round_every, "recipe": project_recipe(project).name}),
        "import_form": (import_form or ImportForm()) if request.user.is_staff and not project.archived_at else None,
    }
    return render_page(request, membership, "project", context)


@login_required
@require_GET
@never_cache
def status(request: HttpRequest, slug: str) -> HttpResponse:
    """Return the next step while a round is active. The last response ends the polling and reloads the page."""
    project = members.manager_of(request.user, slug).project
    active = figures.active_round(project)
    if active is None:
        response = HttpResponse(status=HttpResponseStopPolling.status_code)
        response["HX-Refresh"] = "true"
        return response
    context = {"project": project, "active": active, "step": figures.step_of_active(active)}
    return render(request, "console/_next_step.html", context)


def _recipes(membership: Membership, form: RoundForm) -> dict[str, Any]:
    """Return the context of the choice of a recipe: why no round of the project's own or the form's can start."""
    project = membership.project
    refusals = {name: reason_not_to_start(project, True, name) for name in RECIPES}
    return {
        "recipes": RECIPES.values(),
        "refusal": refusals[project_recipe(project).name],
        "form_refusal": "" if form.only_samples else refusals[form.recipe.name],
        "can_start": not all(refusals.values()),
        "imitation": ""
        if form.only_samples
        else reports.imitation_sentence(form.recipe, form.settings, counts_of(project)),
    }


def _round_form(
    project: Project, again: str | None = None, recipe: str | None = None, data: QueryDict | None = None
) -> RoundForm:
    """Return the form of a new round; `again` is the number of a round whose settings it starts with."""
    choices: dict[str, Any] = {
        "users": dialogue_fields.users_of(project),
        "checkpoints": named_checkpoints.usable_names(project),
    }
    if not again:
        return RoundForm(data, settings_now(project, recipe or None), **choices)
    earlier = reports.round_of(project, int(again) if again.isdecimal() and len(again) < 9 else -1)
    settings = round_settings.resolve(settings_of_repeat(earlier), seed=0)
    return RoundForm(data, settings, only_samples=earlier.only_samples, again=earlier.number, **choices)


@login_required
@require_POST
def start(request: HttpRequest, slug: str) -> HttpResponse:
    membership = members.manager_of(request.user, slug)
    again, recipe = request.POST.get("again"), request.POST.get("recipe")
    form = _round_form(membership.project, again, recipe, request.POST)
    if form.is_valid():
        try:
            started = _start(membership, form)
            return redirect("round", slug, started.number)
        except AccordError as refusal:
            form.add_error(None, refusal.message)
    return _console(request, membership, form)


def _start(membership: Membership, form: RoundForm) -> Round:
    """Start the round that the form describes. Raise as `start_round` does."""
    project, actor = membership.project, membership.user
    if (again := form.cleaned_data["again"]) is None:
        return start_round(project, actor, form.overrides)
    earlier = reports.round_of(project, again)
    settings = round_settings.changed(settings_of_repeat(earlier), form.overrides)
    if earlier.learns:
        return start_round(project, actor, settings)
    return start_sampling(project, actor, settings, earlier.base)


@login_required
@require_POST
def configure(request: HttpRequest, slug: str) -> HttpResponse:
    """Set after how many new rankings a round starts automatically, and by which recipe."""
    membership = members.manager_of(request.user, slug)
    form = checked(LoopForm(request.POST))
    schedule.configure_with_recipe(membership.project, form["round_every"], form["recipe"])
    return redirect("console", slug)


@login_required
@require_POST
def sample(request: HttpRequest, slug: str) -> HttpResponse:
    """Start a round without training: the served checkpoint writes completions to rank."""
    membership = members.manager_of(request.user, slug)
    started = start_sampling(membership.project, request.user)
    return redirect("round", slug, started.number)


@login_required
@require_POST
def import_checkpoint(request: HttpRequest, slug: str) -> HttpResponse:
    """Import a model by its path. A worker checks it later."""
    membership = members.manager_of(request.user, slug)
    checkpoints.check_may_import(membership.user)
    form = ImportForm(request.POST)
    if form.is_valid():
        cleaned = form.cleaned_data
        try:
            checkpoints.import_checkpoint(
                membership.project,
                cleaned["path"],
                cleaned["label"],
                serve=cleaned["serve"],
                actor=request.user,
                may_fetch=False,
            )
            return redirect("console", slug)
        except AccordError as refusal:
            form.add_error(None, refusal.message)
    return _console(request, membership, import_form=form)
