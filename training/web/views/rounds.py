"""Pages of one round, for managers."""

from typing import Any
from zlib import crc32

from django.contrib.auth.decorators import login_required
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_POST
from django_htmx.http import HttpResponseStopPolling

from feedback.actions import members
from feedback.errors import NotFound
from feedback.rendering import render_answer
from feedback.web.presenters import present_messages
from training import checkpoints, curves, evaluations, guards, reports
from training.models import Round, SampleAtStep
from training.rounds import continued_critic, continued_reward, lifecycle, measured_samples
from training.rounds import settings as round_settings
from training.rounds.estimates.sentences import sentences_of
from training.rounds.sample_comparison import Sample, other_checkpoint, samples_of, summary_of
from training.rounds.samples_at_steps import samples_at_steps, samples_version
from training.web.presenters import render_page, side_of
from training.workers.report import gpu_hint

SAMPLES_PER_PAGE = 12
MAX_ROUNDS = 6  # drawn over one another


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
        "estimated": sentences_of(round_),
        "left_out_dialogues": reports.dialogues_sentence(round_),
        "details": reports.details_sentences(round_),
        "reward_start": continued_reward.sentence(round_),
        "critic_start": continued_critic.sentence(round_),
        "evaluation": evaluations.table_of(round_),
        "guards": (rows := guards.table_of(round_)),
        "fallen": guards.fallen_in(round_),
        "false_alarms": guards.false_alarm_sentence(rows),
        "divergences": guards.divergences_of(round_),
        "has_measured_samples": round_.measured_samples.exists(),
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
        **_samples_at_steps(request, round_),
        "max_rounds": MAX_ROUNDS,
        "others": [other for other in reports.rounds_of(membership.project) if other.learns and other != round_],
    }
    return render_page(request, membership, "round", context)


@login_required
@require_GET
@never_cache
def round_status(request: HttpRequest, slug: str, number: int) -> HttpResponse:
    """Return the changing part of a round's page. The last response ends the polling and reloads the page.

    It brings what the page does not have yet: lines of metrics after `?after=<id>`, the log if `?log=` names another
    one, and, if `?version=` is not that of the samples at fixed prompts, an event by which the page fetches them.
    """
    round_ = reports.followed_round(members.manager_of(request.user, slug).project, number)
    context = _status(round_)
    context["log_is_new"] = request.GET.get("log") != context["log_version"]
    if (after := _number(request, "after")) is not None:
        news = curves.new_lines(round_, curves.names_of(round_), after)
        context["new_lines"] = {**news, "levels": curves.levels_of(round_)}
    response = render(request, "console/_round_status.html", context)
    if request.GET.get("version", "") != samples_version(round_):
        response["HX-Trigger"] = "new-samples"
    if not round_.is_active:
        response.status_code = HttpResponseStopPolling.status_code
        response["HX-Refresh"] = "true"
    return response


@login_required
@require_GET
@never_cache
def round_samples_at_steps(request: HttpRequest, slug: str, number: int) -> HttpResponse:
    """Return samples at fixed prompts, of the first, the newest and the step `?step=`."""
    membership = members.manager_of(request.user, slug)
    round_ = reports.round_of(membership.project, number)
    context = {"project": membership.project, "round": round_, **_samples_at_steps(request, round_)}
    return render(request, "console/_samples_at_steps.html", context)


@login_required
@require_GET
def round_measured_samples(request: HttpRequest, slug: str, number: int) -> HttpResponseBase:
    """Return the samples that figures of the round are computed from as a file of JSON Lines."""
    round_ = reports.round_of(members.manager_of(request.user, slug).project, number)
    return measured_samples.as_response(request, round_)


@login_required
@require_GET
@never_cache
def round_metrics(request: HttpRequest, slug: str, number: int) -> HttpResponse:
    """Return the curves of a round, thinned.

    `?columns=`, `?from=` and `?to=` choose the thinning and a range of steps, `?job=` and `?metrics=a b` one chart.
    """
    round_ = reports.round_of(members.manager_of(request.user, slug).project, number)
    names, until = _names(request, round_), curves.last_id(round_)
    span = curves.Span(_number(request, "from"), _number(request, "to"))
    columns = _number(request, "columns") or curves.COLUMNS
    drawn = curves.thinned(round_, names, until, columns, span)
    levels = curves.levels_of(round_)
    return JsonResponse({"curves": drawn, "levels": levels, "after": until, "ended": not round_.is_active})


@login_required
@require_GET
@never_cache
def round_metrics_csv(request: HttpRequest, slug: str, number: int) -> HttpResponse:
    """Return all values of one chart as CSV: `?job=`, `?metrics=a b`, and `?with=<number>` for other rounds' too."""
    project = members.manager_of(request.user, slug).project
    others = [int(other) for other in request.GET.getlist("with")[:MAX_ROUNDS] if other.isdecimal() and len(other) < 9]
    rounds = [reports.round_of(project, n) for n in dict.fromkeys((number, *others))]
    names = _names(request, rounds[0])
    if "job" not in request.GET or not names:
        raise NotFound(_("Round %(number)s has no such curve.") % {"number": number})
    ((job, metrics),) = names.items()
    response = StreamingHttpResponse(curves.csv_lines(rounds, job, metrics), content_type="text/csv; charset=utf-8")
    response["Content-Disposition"] = f'attachment; filename="{slug}-round-{number}-{job}-{"-".join(metrics)}.csv"'
    return response


def _names(request: HttpRequest, round_: Round) -> dict[str, list[str]]:
    """Return the metrics that the request names, of those that the round's recipe draws; all of them by default."""
    names, job = curves.names_of(round_), request.GET.get("job")
    if job is None:
        return names
    wanted = [name for name in request.GET.get("metrics", "").split() if name in names.get(job, [])]
    return {job: wanted} if wanted else {}


def _number(request: HttpRequest, name: str) -> int | None:
    """Return a whole number from the query; None if it is missing or none."""
    value = request.GET.get(name, "")
    return int(value) if value.isdecimal() and len(value) < 19 else None


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
        "warning": guards.warning(guards.fallen_in(round_)),
        "other": other,
        "served_before": checkpoints.served_before(membership.project),
        "samples": page,
        "summary": summary,
    }
    return render_page(request, membership, "samples", context)


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
        "log_version": f"{crc32(round_.log_tail.encode()):08x}",
        "hint": gpu_hint(round_.project) if round_.status == Round.Status.WAITING else "",
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


def _samples_at_steps(request: HttpRequest, round_: Round) -> dict[str, Any]:
    """Return the context of `_samples_at_steps.html`."""
    step = _number(request, "step")
    at_steps = samples_at_steps(round_, step)
    return {
        "at_steps": at_steps,
        "asked_step": "" if step is None else step,
        "sample_rows": [
            {
                "messages": present_messages(row.prompt.messages),
                "sides": [{"step": step, **_present_step(sample)} for step, sample in row.samples],
            }
            for row in (at_steps.prompts if at_steps else [])
        ],
    }


def _present_step(sample: SampleAtStep | None) -> dict[str, Any]:
    if sample is None:
        return {"html": None, "score": None}
    return {"html": render_answer(sample.answer), "text": sample.answer.text, "score": sample.reward}


def _present_sample(sample: Sample) -> dict[str, Any]:
    return {
        "messages": present_messages(sample.prompt.messages),
        "ours": side_of(sample.ours, sample.our_score),
        "theirs": side_of(sample.theirs, sample.their_score) if sample.theirs else None,
    }
