"""The page of a project's loop, for managers: its rounds and checkpoints, and the forms that start and import them."""

from typing import Any

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
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
from training.rounds import schedule
from training.rounds.recipes import RECIPES
from training.rounds.start import (
    project_recipe,
    start_sampling,
)
from training.web.forms import ImportForm, LoopForm
from training.web.presenters import reason_not_to_start, render_page
from training.web.views.checkpoints import checkpoint_rows


@login_required
@require_GET
def console(request: HttpRequest, slug: str) -> HttpResponse:
    return _console(request, members.manager_of(request.user, slug))


def _console(request: HttpRequest, membership: Membership, import_form: ImportForm | None = None) -> HttpResponse:
    project = membership.project
    loop = reports.loop_of(project)
    starts, can_sample = _starts(project), not reason_not_to_start(project, learns=False)
    summary = figures.figures_of(project)
    state = figures.state_of(
        project,
        loop,
        summary,
        may_import=membership.user.is_staff,
        refusal=starts["refusal"],
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
        **starts,
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


def _starts(project: Project) -> dict[str, Any]:
    """Return whether a round of any recipe can start now, and why none of the project's own recipe can."""
    refusals = {name: reason_not_to_start(project, True, name) for name in RECIPES}
    return {"refusal": refusals[project_recipe(project).name], "can_start": not all(refusals.values())}


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
