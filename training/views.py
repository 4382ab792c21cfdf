"""Pages of the console, for managers: a project's loop, its rounds and its checkpoints."""

from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse, JsonResponse, QueryDict
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_POST
from django_htmx.http import HttpResponseStopPolling

from feedback.actions import members
from feedback.errors import AccordError, NotFound
from feedback.models import Completion, Membership, Project
from feedback.rendering import render_answer
from feedback.web.forms import checked
from feedback.web.presenters import present_messages
from training import checkpoints, dialogue_fields, evaluations, reports
from training.forms import ImportForm, LoopForm, RoundForm
from training.models import Checkpoint, Round
from training.rounds import continued_critic, continued_reward, lifecycle, schedule
from training.rounds import settings as round_settings
from training.rounds.recipes import RECIPES
from training.rounds.recipes.evaluate import NAME as EVALUATE
from training.rounds.sample_comparison import Sample, other_checkpoint, samples_of, summary_of
from training.rounds.start import (
    check_can_start,
    counts_of,
    project_recipe,
    settings_now,
    settings_of_repeat,
    start_round,
    start_sampling,
)

SAMPLES_PER_PAGE = 12


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
    context = {
        **vars(loop),
        "rounds": reports.rounds_of(project),
        **_checkpoints(project),
        "form": form,
        "form_is_open": form_is_open,
        **_recipes(membership, form),
        "can_sample": not _reason_not_to_start(project, learns=False),
        "loop_form": LoopForm(initial={"round_every": loop.round_every, "recipe": project_recipe(project).name}),
        "import_form": (import_form or ImportForm()) if request.user.is_staff and not project.archived_at else None,
    }
    return _page(request, membership, "project", context)


def _checkpoints(project: Project) -> dict[str, Any]:
    """Return the context of the checkpoint table, which is polled while a checkpoint waits for its check."""
    rows: list[Any] = list(reports.checkpoints_of(project))
    for checkpoint in rows:
        checkpoint.headlines = evaluations.headlines(checkpoint)
    return {
        "checkpoints": rows,
        "can_evaluate": not _reason_not_to_start(project, True, EVALUATE),
        "served": next((checkpoint for checkpoint in rows if checkpoint.is_served), None),
        "is_checking": any(checkpoint.verdict == Checkpoint.Verdict.WAITING for checkpoint in rows),
        "check_hint": reports.check_hint(project),
    }


@login_required
@require_GET
@never_cache
def checkpoint_table(request: HttpRequest, slug: str) -> HttpResponse:
    """Return the checkpoint table as a fragment. The last response ends the polling and reloads the page."""
    membership = members.manager_of(request.user, slug)
    context = {"project": membership.project, **_checkpoints(membership.project)}
    response = render(request, "console/_checkpoints.html", context)
    if not context["is_checking"]:
        response.status_code = HttpResponseStopPolling.status_code
        response["HX-Refresh"] = "true"
    return response


def _recipes(membership: Membership, form: RoundForm) -> dict[str, Any]:
    """Return the context of the choice of a recipe: why no round of the project's own or the form's can start."""
    project = membership.project
    refusals = {name: _reason_not_to_start(project, True, name) for name in RECIPES}
    return {
        "recipes": RECIPES.values(),
        "refusal": refusals[project_recipe(project).name],
        "form_refusal": "" if form.only_samples else refusals[form.recipe.name],
        "can_start": not all(refusals.values()),
        "imitation": ""
        if form.only_samples
        else reports.imitation_sentence(form.recipe, form.settings, counts_of(project)),
    }


def _reason_not_to_start(project: Project, learns: bool, recipe: str | None = None) -> str:
    """Return the message why no round can start now, or ""."""
    try:
        check_can_start(project, learns, recipe)
    except AccordError as refusal:
        return refusal.message
    return ""


def _round_form(
    project: Project, again: str | None = None, recipe: str | None = None, data: QueryDict | None = None
) -> RoundForm:
    """Return the form of a new round; `again` is the number of a round whose settings it starts with."""
    users = dialogue_fields.users_of(project)
    if not again:
        return RoundForm(data, settings_now(project, recipe or None), users=users)
    earlier = reports.round_of(project, int(again) if again.isdecimal() and len(again) < 9 else -1)
    settings = round_settings.resolve(settings_of_repeat(earlier), seed=0)
    return RoundForm(data, settings, only_samples=earlier.only_samples, again=earlier.number, users=users)


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
@require_GET
@never_cache
def one_round(request: HttpRequest, slug: str, number: int) -> HttpResponse:
    membership = members.manager_of(request.user, slug)
    round_ = reports.round_of(membership.project, number)
    context = {
        **_status(round_),
        "reward": round_.results.get("reward"),
        "policy": round_.results.get("policy"),
        "imitation": _imitation(round_),
        "left_out_dialogues": reports.dialogues_sentence(round_),
        "details": reports.details_sentences(round_),
        "reward_start": continued_reward.sentence(round_),
        "critic_start": continued_critic.sentence(round_),
        "evaluation": evaluations.table_of(round_),
        "facts": [
            {"label": fact.label, "value": round_.results[job.name][fact.key], "note": fact.note}
            for job in round_.jobs
            for fact in job.facts
            if round_.results.get(job.name, {}).get(fact.key) is not None
        ],
        # The last program first: its result is the outcome of the round.
        "curves": [
            {
                "job": job.name,
                "title": curve.title,
                "metrics": curve.metrics,
                "labels": "|".join(map(str, curve.labels)),
            }
            for job in reversed(round_.jobs)
            for curve in job.curves
        ],
    }
    return _page(request, membership, "round", context)


@login_required
@require_GET
@never_cache
def round_status(request: HttpRequest, slug: str, number: int) -> HttpResponse:
    """Return the changing part of a round's page. The last response ends the polling and reloads the page."""
    round_ = reports.round_of(members.manager_of(request.user, slug).project, number)
    response = render(request, "console/_round_status.html", _status(round_))
    if not round_.is_active:
        response.status_code = HttpResponseStopPolling.status_code
        response["HX-Refresh"] = "true"
    return response


@login_required
@require_GET
@never_cache
def round_metrics(request: HttpRequest, slug: str, number: int) -> HttpResponse:
    round_ = reports.round_of(members.manager_of(request.user, slug).project, number)
    after = request.GET.get("after", "0")
    lines = reports.metrics(round_, int(after) if after.isdecimal() and len(after) < 19 else 0)
    return JsonResponse({"lines": lines, "ended": not round_.is_active})


@login_required
@require_POST
def cancel(request: HttpRequest, slug: str, number: int) -> HttpResponse:
    lifecycle.request_cancel(reports.round_of(members.manager_of(request.user, slug).project, number))
    return redirect("round", slug, number)


@login_required
@require_POST
def resume(request: HttpRequest, slug: str, number: int) -> HttpResponse:
    lifecycle.resume(reports.round_of(members.manager_of(request.user, slug).project, number))
    return redirect("round", slug, number)


@login_required
@require_GET
def samples(request: HttpRequest, slug: str, number: int) -> HttpResponse:
    """Show samples of the round's checkpoint side by side with the served one's."""
    membership = members.manager_of(request.user, slug)
    round_ = reports.round_of(membership.project, number)
    if round_.checkpoint is None:
        raise NotFound(_("This round made no checkpoint, so there are no samples to compare."))
    other = other_checkpoint(round_.checkpoint)
    all_samples = samples_of(round_, round_.checkpoint, other)
    page = Paginator(all_samples, SAMPLES_PER_PAGE).get_page(request.GET.get("page"))
    page.object_list = [_present_sample(sample) for sample in page.object_list]
    summary = summary_of(all_samples)
    context = {
        "round": round_,
        "gain": round_.results.get("policy") if other == round_.base else None,
        "low": round(100 * (summary.low or 0)),
        "high": round(100 * (summary.high or 0)),
        "checkpoint": round_.checkpoint,
        "other": other,
        "served_before": checkpoints.served_before(membership.project),
        "samples": page,
        "summary": summary,
    }
    return _page(request, membership, "samples", context)


@login_required
@require_POST
def promote(request: HttpRequest, slug: str, checkpoint_id: int) -> HttpResponse:
    membership = members.manager_of(request.user, slug)
    checkpoint = reports.checkpoint_of(membership.project, checkpoint_id)
    checkpoints.promote(checkpoint, request.user)
    messages.success(request, _("%(name)s is served now.") % {"name": checkpoint})
    return redirect("console", slug)


@login_required
@require_POST
def check_again(request: HttpRequest, slug: str, checkpoint_id: int) -> HttpResponse:
    membership = members.manager_of(request.user, slug)
    checkpoints.check_again(reports.checkpoint_of(membership.project, checkpoint_id))
    return redirect("console", slug)


@login_required
@require_POST
def roll_back(request: HttpRequest, slug: str) -> HttpResponse:
    membership = members.manager_of(request.user, slug)
    promotion = checkpoints.roll_back(membership.project, request.user)
    messages.success(request, _("%(name)s is served again.") % {"name": promotion.checkpoint})
    return redirect("console", slug)


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


def _imitation(round_: Round) -> str:
    """Return a sentence about how many demonstrations the round imitates, or why none."""
    if not round_.learns:
        return ""
    return reports.imitation_sentence(round_.recipe, round_settings.completed(round_.settings), round_.counts)


def _status(round_: Round) -> dict[str, Any]:
    """Return the context of the changing part of a round's page."""
    stages = reports.stages_of(round_)
    step = next((stage.step for stage in stages if stage.step is not None), None)
    return {
        "round": round_,
        "cancels": round_.is_active and round_.cancel_requested_at is not None,
        "progress": step.percent if step else None,
        "eta": step.seconds_left if step else None,
        "stages": [
            {
                "label": stage.label,
                "state": stage.state,
                "detail": _("%(step)s of %(total)s") % vars(stage.step) if stage.step else "",
            }
            for stage in stages
        ],
    }


def _present_sample(sample: Sample) -> dict[str, Any]:
    return {
        "messages": present_messages(sample.prompt.messages),
        "ours": _side(sample.ours, sample.our_score),
        "theirs": _side(sample.theirs, sample.their_score) if sample.theirs else None,
    }


def _side(completion: Completion, score: float | None) -> dict[str, Any]:
    return {"html": render_answer(completion.answer), "text": completion.text, "score": score}


def _page(request: HttpRequest, membership: Membership, page: str, context: dict[str, Any]) -> HttpResponse:
    context = {"project": membership.project, "membership": membership, "page": "console", **context}
    return render(request, f"console/{page}.html", context)
