"""The page that starts a round, for managers: its settings, what it would learn from, and the estimate."""

from typing import Any

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import redirect
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST

from feedback.actions import members
from feedback.errors import AccordError
from feedback.models import Membership, Project
from training import reports
from training.models import Round
from training.rounds import named_checkpoints
from training.rounds import settings as round_settings
from training.rounds.estimates.sentences import duration, size
from training.rounds.plan import Plan, plan_of
from training.rounds.recipes import RECIPES
from training.rounds.recipes.description import Sections
from training.rounds.start import counts_of, settings_now, settings_of_repeat, start_round, start_sampling
from training.web import dialogue_fields
from training.web.presenters import render_page
from training.web.round_form import RoundForm, as_data, reset

MOST_PEOPLE = 20  # that the page names


@login_required
@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def new_round(request: HttpRequest, slug: str) -> HttpResponse:
    """Show the form of a new round, of `?recipe=<name>` or with the settings of round `?again=<number>`.

    A POST shows what was typed with its plan, and starts nothing: after another recipe was chosen, or with `reset`, the
    key of a field, which gets its default.
    """
    membership = members.manager_of(request.user, slug)
    sent = request.POST if request.method == "POST" else request.GET
    form = _form(membership.project, sent.get("again"), sent.get("recipe"), sent if sent is request.POST else None)
    if form.is_bound and (key := request.POST.get("reset")):
        reset(form, key)
    return _page(request, membership, form)


@login_required
@require_POST
def start(request: HttpRequest, slug: str) -> HttpResponse:
    """Start the round that the form describes, or show the form again with what is wrong."""
    membership = members.manager_of(request.user, slug)
    form = _form(membership.project, request.POST.get("again"), request.POST.get("recipe"), request.POST)
    if form.is_valid():
        try:
            return redirect("round", slug, _start(membership, form).number)
        except AccordError as refusal:
            form.add_refusal(refusal)
    return _page(request, membership, form)


def _start(membership: Membership, form: RoundForm) -> Round:
    """Start the round that the form describes. Raise as `start_round` does."""
    project, actor = membership.project, membership.user
    earlier, settings = _round_of(project, form)
    if form.only_samples or (earlier and not earlier.learns):
        return start_sampling(project, actor, settings, earlier.base if earlier else None)
    return start_round(project, actor, settings)


def _round_of(project: Project, form: RoundForm) -> tuple[Round | None, Sections]:
    """Return the round whose settings the form changes, if any, and the settings of the new one."""
    if (again := form.cleaned_data["again"]) is None:
        return None, _without_nones(form.overrides)
    earlier = reports.round_of(project, again)
    return earlier, _without_nones(round_settings.changed(settings_of_repeat(earlier), form.overrides))


def _without_nones(sections: Sections) -> Sections:
    """Leave out settings without a value: a seed that the round chooses."""
    return {name: {key: one for key, one in values.items() if one is not None} for name, values in sections.items()}


def _form(project: Project, again: str | None, recipe: str | None, data: QueryDict | None = None) -> RoundForm:
    """Return the form of a new round; `again` is the number of a round whose settings it starts with.

    Of data that was sent for the form of another recipe, only what had been changed is kept.
    """
    choices: dict[str, Any] = {
        "users": dialogue_fields.users_of(project),
        "checkpoints": named_checkpoints.usable_names(project),
    }
    if again:
        earlier = reports.round_of(project, int(again) if again.isdecimal() and len(again) < 9 else -1)
        settings = _with_open_seeds(round_settings.resolve(settings_of_repeat(earlier), seed=seed) for seed in (0, 1))
        defaults = _defaults(project, settings["round"]["recipe"])
        return RoundForm(data, settings, earlier.only_samples, again=earlier.number, defaults=defaults, **choices)
    form = RoundForm(data, _defaults(project, recipe or None), **choices)
    recipe_before = data.get("shown") if data is not None else None
    if data is None or recipe_before in (None, form.recipe.name) or recipe_before not in RECIPES:
        return form
    before = RoundForm(data, _defaults(project, recipe_before), **choices)
    kept = as_data(form)
    for key in before.changed_data:
        if key in form.fields:
            kept.setlist(key, data.getlist(key))
    kept["recipe"] = form.recipe.name
    return form.with_data(kept)


def _defaults(project: Project, recipe: str | None) -> Sections:
    return _with_open_seeds(settings_now(project, recipe, seed) for seed in (0, 1))


def _with_open_seeds(resolved: Any) -> Sections:
    """Return settings of which two versions, with other seeds of the round, are given, without seeds that follow it."""
    one, other = resolved
    return {
        section: {name: value if value == other[section][name] else None for name, value in values.items()}
        for section, values in one.items()
    }


def _page(request: HttpRequest, membership: Membership, form: RoundForm) -> HttpResponse:
    project = membership.project
    plan = _plan(project, form)
    if form.is_bound and plan and plan.error and plan.round is None and not form.errors:
        form.add_refusal(plan.error)
    groups = form.other_groups()
    served = project.checkpoints.filter(is_served=True).select_related("source").first()
    people = plan.rankings.people if plan and plan.rankings else []
    context = {
        "form": form,
        "simple": form.simple_rows(),
        "groups": groups,
        "changed": sum(group.changed for group in groups),
        "is_open": any(group.changed or any(row.field.errors for row in group.rows) for group in groups),
        "recipes": RECIPES.values(),
        "served": served,
        "plan": plan,
        "people": people[:MOST_PEOPLE],
        "more_people": len(people[MOST_PEOPLE:]),
        "estimate": _estimate(plan) if plan and plan.estimate else None,
        "imitation": ""
        if form.only_samples
        else reports.imitation_sentence(form.recipe, form.settings, counts_of(project)),
    }
    return render_page(request, membership, "new_round", context)


def _plan(project: Project, form: RoundForm) -> Plan | None:
    """Return the plan of the round that the form describes; None while a field is wrong."""
    bound = form if form.is_bound else form.with_data(as_data(form))
    if not bound.is_valid():
        return None
    earlier, settings = _round_of(project, bound)
    learns = not form.only_samples and (earlier is None or earlier.learns)
    return plan_of(project, settings, learns=learns, base=earlier.base if earlier and not earlier.learns else None)


def _estimate(plan: Plan) -> dict[str, Any]:
    """Return the estimate as texts."""
    estimate = plan.estimate
    assert estimate is not None and plan.round is not None
    labels = {job.stage.name: job.stage.label for job in plan.round.jobs}

    def text(seconds: float | None) -> str:
        return "" if seconds is None else duration(seconds)

    return {
        "time": text(estimate.seconds),
        "low": text(estimate.low),
        "high": text(estimate.high),
        "rounds": estimate.rounds,
        "stages": [{"label": labels[name], "time": text(seconds)} for name, seconds in estimate.by_stage.items()],
        "memory": "" if estimate.memory_gb is None else size(estimate.memory_gb),
        "models": "" if estimate.model_gb is None else size(estimate.model_gb),
        "is_gpu": estimate.is_gpu_memory,
        "parameters": estimate.parameters,
    }
