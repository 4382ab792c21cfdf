"""The console: a project's loop, its rounds and its checkpoints. For managers."""

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
from feedback.rendering import render as render_markdown
from feedback.web.forms import checked
from feedback.web.presenters import present_messages
from training import checkpoints, reports
from training.forms import ImportForm, LoopForm, RoundForm
from training.models import Checkpoint, Round
from training.rounds import lifecycle, schedule
from training.rounds import settings as round_settings
from training.rounds.sample_comparison import Sample, beside, samples_of, summary_of
from training.rounds.start import check_can_start, settings_now, settings_of_repeat, start_round, start_sampling

SAMPLES_A_PAGE = 12


@login_required
@require_GET
def console(request: HttpRequest, slug: str) -> HttpResponse:
    """`?again=<number>` opens the form of a new round with the settings of that one."""
    membership = members.manager_of(request.user, slug)
    form = _round_form(membership.project, request.GET.get("again")) if "again" in request.GET else None
    return _console(request, membership, form)


def _console(
    request: HttpRequest, membership: Membership, form: RoundForm | None = None, import_form: ImportForm | None = None
) -> HttpResponse:
    project = membership.project
    loop = reports.loop_of(project)
    shown = {
        **vars(loop),
        "rounds": reports.rounds_of(project),
        **_checkpoints(project),
        "form": form or _round_form(project),
        "form_is_open": form is not None,
        "refusal": _refusal(membership, learns=True),
        "can_sample": not _refusal(membership, learns=False),
        "loop_form": LoopForm(initial={"round_every": loop.round_every}),
        "import_form": (import_form or ImportForm()) if request.user.is_staff and not project.archived_at else None,
    }
    return _page(request, membership, "project", shown)


def _checkpoints(project: Project) -> dict[str, Any]:
    """The context of the table of checkpoints, which is polled while one of them waits for its check."""
    found = list(reports.checkpoints_of(project))
    return {
        "checkpoints": found,
        "served": next((each for each in found if each.is_served), None),
        "is_checking": any(each.verdict == Checkpoint.Verdict.WAITING for each in found),
        "check_hint": reports.check_hint(project),
    }


@login_required
@require_GET
@never_cache
def checkpoint_table(request: HttpRequest, slug: str) -> HttpResponse:
    """The checkpoints and their verdicts. The last answer ends the polling, and loads the page anew."""
    membership = members.manager_of(request.user, slug)
    context = {"project": membership.project, **_checkpoints(membership.project)}
    response = render(request, "console/_checkpoints.html", context)
    if not context["is_checking"]:
        response.status_code = HttpResponseStopPolling.status_code
        response["HX-Refresh"] = "true"
    return response


def _refusal(membership: Membership, learns: bool) -> str:
    try:
        check_can_start(membership.project, learns)
    except AccordError as refusal:
        return refusal.message
    return ""


def _round_form(project: Project, again: str | None = None, data: QueryDict | None = None) -> RoundForm:
    """Return the form of a new round, with the settings of round number `again` if one is named."""
    if not again:
        return RoundForm(data, settings_now(project))
    earlier = reports.round_of(project, int(again) if again.isdecimal() and len(again) < 9 else -1)
    settings = round_settings.resolve(settings_of_repeat(earlier), seed=0)
    return RoundForm(data, settings, learns=earlier.learns, again=earlier.number)


@login_required
@require_POST
def start(request: HttpRequest, slug: str) -> HttpResponse:
    membership = members.manager_of(request.user, slug)
    form = _round_form(membership.project, request.POST.get("again"), request.POST)
    if form.is_valid():
        try:
            started = _start(membership, form)
            return redirect("round", slug, started.number)
        except AccordError as refusal:
            form.add_error(None, refusal.message)
    return _console(request, membership, form)


def _start(membership: Membership, form: RoundForm) -> Round:
    """Start the round that the form describes. Raises what `rounds.start` does."""
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
    """After how many new rankings a round starts by itself."""
    membership = members.manager_of(request.user, slug)
    schedule.configure(membership.project, checked(LoopForm(request.POST))["round_every"])
    return redirect("console", slug)


@login_required
@require_POST
def sample(request: HttpRequest, slug: str) -> HttpResponse:
    """The served checkpoint writes completions to be ranked, and nothing is learned."""
    membership = members.manager_of(request.user, slug)
    started = start_sampling(membership.project, request.user)
    return redirect("round", slug, started.number)


@login_required
@require_GET
@never_cache
def one_round(request: HttpRequest, slug: str, number: int) -> HttpResponse:
    membership = members.manager_of(request.user, slug)
    found = reports.round_of(membership.project, number)
    shown = {**_status(found), "reward": found.results.get("reward"), "policy": found.results.get("policy")}
    return _page(request, membership, "round", shown)


@login_required
@require_GET
@never_cache
def round_status(request: HttpRequest, slug: str, number: int) -> HttpResponse:
    """The part of the page that moves. The last answer ends the polling, and loads the page anew."""
    found = reports.round_of(members.manager_of(request.user, slug).project, number)
    response = render(request, "console/_round_status.html", _status(found))
    if not found.is_active:
        response.status_code = HttpResponseStopPolling.status_code
        response["HX-Refresh"] = "true"
    return response


@login_required
@require_GET
@never_cache
def round_metrics(request: HttpRequest, slug: str, number: int) -> HttpResponse:
    found = reports.round_of(members.manager_of(request.user, slug).project, number)
    after = request.GET.get("after", "0")
    lines = reports.metrics(found, int(after) if after.isdecimal() and len(after) < 19 else 0)
    return JsonResponse({"lines": lines, "ended": not found.is_active})


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
    """What the round's checkpoint says beside the served one, on the same prompts."""
    membership = members.manager_of(request.user, slug)
    found = reports.round_of(membership.project, number)
    if found.checkpoint is None:
        raise NotFound(_("This round has made no checkpoint, so there are no samples to compare."))
    other = beside(found.checkpoint)
    every = samples_of(found, found.checkpoint, other)
    page = Paginator(every, SAMPLES_A_PAGE).get_page(request.GET.get("page"))
    page.object_list = [_shown(each) for each in page.object_list]
    summary = summary_of(every)
    shown = {
        "round": found,
        "gain": found.results.get("policy") if other == found.base else None,
        "low": round(100 * (summary.low or 0)),
        "high": round(100 * (summary.high or 0)),
        "checkpoint": found.checkpoint,
        "other": other,
        "served_before": checkpoints.served_before(membership.project),
        "samples": page,
        "summary": summary,
    }
    return _page(request, membership, "samples", shown)


@login_required
@require_POST
def promote(request: HttpRequest, slug: str, checkpoint_id: int) -> HttpResponse:
    membership = members.manager_of(request.user, slug)
    chosen = reports.checkpoint_of(membership.project, checkpoint_id)
    checkpoints.promote(chosen, request.user)
    messages.success(request, _("%(name)s is served now.") % {"name": chosen})
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
    done = checkpoints.roll_back(membership.project, request.user)
    messages.success(request, _("%(name)s is served again.") % {"name": done.checkpoint})
    return redirect("console", slug)


@login_required
@require_POST
def import_checkpoint(request: HttpRequest, slug: str) -> HttpResponse:
    """Take in a model by its path. It waits for its check by a worker."""
    membership = members.manager_of(request.user, slug)
    checkpoints.check_may_import(membership.user)
    form = ImportForm(request.POST)
    if form.is_valid():
        given = form.cleaned_data
        try:
            checkpoints.import_checkpoint(
                membership.project,
                given["path"],
                given["label"],
                serve=given["serve"],
                actor=request.user,
                may_fetch=False,
            )
            return redirect("console", slug)
        except AccordError as refusal:
            form.add_error(None, refusal.message)
    return _console(request, membership, import_form=form)


def _status(found: Round) -> dict[str, Any]:
    """The context of what moves on a round's page."""
    stages = reports.stages_of(found)
    step = next((stage.step for stage in stages if stage.step is not None), None)
    return {
        "round": found,
        "cancels": found.is_active and found.cancel_requested_at is not None,
        "progress": step.percent if step else None,
        "eta": step.seconds_left if step else None,
        "stages": [
            {
                "label": Round.Stage(stage.name).label,
                "state": stage.state,
                "detail": _("%(step)s of %(total)s") % vars(stage.step) if stage.step else "",
            }
            for stage in stages
        ],
    }


def _shown(each: Sample) -> dict[str, Any]:
    return {
        "messages": present_messages(each.prompt.messages),
        "ours": _side(each.ours, each.our_score),
        "theirs": _side(each.theirs, each.their_score) if each.theirs else None,
    }


def _side(completion: Completion, score: float | None) -> dict[str, Any]:
    return {"html": render_markdown(completion.text), "text": completion.text, "score": score}


def _page(request: HttpRequest, membership: Membership, page: str, shown: dict[str, Any]) -> HttpResponse:
    context = {"project": membership.project, "membership": membership, "page": "console", **shown}
    return render(request, f"console/{page}.html", context)
