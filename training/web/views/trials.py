"""Pages of blind trials, for managers."""

from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_POST
from django_htmx.http import HttpResponseStopPolling

from feedback.actions import members
from feedback.models import Trial
from feedback.web.forms import checked
from feedback.web.presenters import present_messages
from training import checkpoints, gate, reports, trials
from training.models import Round
from training.rounds import schedule
from training.web.forms import GateForm
from training.web.presenters import render_page, side_of

EXAMPLES_PER_PAGE = 10


@login_required
@require_GET
@never_cache
def trial_list(request: HttpRequest, slug: str) -> HttpResponse:
    """Show the project's trials, and who promotes after one."""
    membership = members.manager_of(request.user, slug)
    project, rows = membership.project, list(trials.trials_of(membership.project))
    loop = trials.gate_of(project)
    context = {
        "trials": [trials.standing_of(trial) for trial in rows],
        "active": project.rounds.filter(status__in=Round.ACTIVE, settings__round__recipe=trials.NAME).first(),
        "refusal": trials.reason_not_to_try(project),
        "gate_sentence": trials.gate_sentence(loop),
        "gate_form": GateForm(initial={"gate": loop.gate, "futile_below": GateForm.percent_of(loop.worthwhile_share)}),
    }
    return render_page(request, membership, "trials", context)


@login_required
@require_GET
@never_cache
def one_trial(request: HttpRequest, slug: str, number: int) -> HttpResponse:
    """Show a trial with what its votes say so far, and the ranked completions beside each other."""
    membership = members.manager_of(request.user, slug)
    trial = trials.trial_of(membership.project, number)
    page = Paginator(trials.voted_comparisons(trial), EXAMPLES_PER_PAGE).get_page(request.GET.get("page"))
    sources = {row.source_id: str(row.source) for row in trial.trial_sources.all()}
    page.object_list = [_example(voted, sources) for voted in trials.with_votes(trial, page.object_list)]
    context = {**_status(trial), "examples": page, "served_before": checkpoints.served_before(membership.project)}
    return render_page(request, membership, "trial", context)


@login_required
@require_GET
@never_cache
def trial_status(request: HttpRequest, slug: str, number: int) -> HttpResponse:
    """Return the changing part of a trial's page. The last response ends the polling and reloads the page."""
    membership = members.manager_of(request.user, slug)
    trial = trials.trial_of(membership.project, number)
    response = render(request, "console/_trial_status.html", {"project": membership.project, **_status(trial)})
    if not trial.is_open:
        response.status_code = HttpResponseStopPolling.status_code
        response["HX-Refresh"] = "true"
    return response


@login_required
@require_POST
def try_blind(request: HttpRequest, slug: str, checkpoint_id: int) -> HttpResponse:
    """Start a round in which the checkpoint and the served one answer for their trial."""
    membership = members.manager_of(request.user, slug)
    checkpoint = reports.checkpoint_of(membership.project, checkpoint_id)
    started = trials.try_blind(membership.project, membership.user, checkpoint)
    return redirect("round", slug, started.number)


@login_required
@require_POST
def end(request: HttpRequest, slug: str, number: int) -> HttpResponse:
    membership = members.manager_of(request.user, slug)
    gate.end(trials.trial_of(membership.project, number), membership.user)
    return redirect("trial", slug, number)


@login_required
@require_POST
def promote(request: HttpRequest, slug: str, number: int, checkpoint_id: int) -> HttpResponse:
    """Serve a checkpoint of the trial, and end the trial if it is open."""
    membership = members.manager_of(request.user, slug)
    checkpoint = reports.checkpoint_of(membership.project, checkpoint_id)
    trial = trials.trial_of(membership.project, number)
    gate.promote(trial, checkpoint, membership.user, confirmed="confirmed" in request.POST)
    messages.success(request, _("%(name)s is served now.") % {"name": checkpoint})
    return redirect("trial", slug, number)


@login_required
@require_POST
def configure(request: HttpRequest, slug: str) -> HttpResponse:
    """Set who promotes after a trial, and when a trial is futile."""
    membership = members.manager_of(request.user, slug)
    form = checked(GateForm(request.POST))
    schedule.configure_gate(membership.project, form["gate"], (form["futile_below"] or 50) / 100)
    return redirect("trials", slug)


def _status(trial: Trial) -> dict[str, Any]:
    """Return the context of the changing part of a trial's page."""
    standing = trials.standing_of(trial)
    return {
        "trial": trial,
        "standing": standing,
        "candidates": [{"candidate": one, "bar": _bar(one)} for one in standing.candidates],
        "gate_sentence": trials.gate_sentence(trials.gate_of(trial.project), trial) if trial.is_open else "",
        "promotion": trials.promotion_of(trial),
    }


def _bar(candidate: trials.Candidate) -> dict[str, float] | None:
    """Return the places of a win share and its interval in an image of 200 units; None without a decisive vote."""
    evidence = candidate.evidence
    if evidence.win_share is None:
        return None
    width = 200 * (evidence.high - evidence.low)
    return {"low": 200 * evidence.low, "width": max(width, 1.0), "share": 200 * evidence.win_share}


def _example(voted: trials.VotedComparison, sources: dict[int, str]) -> dict[str, Any]:
    """Return a ranked comparison: its prompt, one side for each source in their order, and the votes."""
    prompt = voted.comparison.prompt
    return {
        "messages": present_messages(prompt.messages),
        "is_held_out": prompt.split == prompt.Split.HELD_OUT,
        "sides": [{"name": name, "answer": side_of(voted.completions[pk])} for pk, name in sources.items()],
        "votes": [{"annotator": annotator, "order": _order(places, sources)} for annotator, places in voted.votes],
    }


def _order(places: list[list[int]], sources: dict[int, str]) -> str:
    """Return a ranking as text: names from best to worst, equal ranks with "="."""
    return " > ".join(" = ".join(sources[pk] for pk in place) for place in places)
