"""Pages and buttons of checkpoints, for managers."""

from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_POST
from django_htmx.http import HttpResponseStopPolling

from feedback.actions import members
from feedback.models import Project
from training import checkpoints, evaluations, guards, reports, trials
from training.checkpoints import retirement
from training.models import Checkpoint
from training.rounds.recipes.description import Text
from training.rounds.recipes.evaluate import NAME as EVALUATE
from training.web.presenters import reason_not_to_start, render_page
from training.workers.report import gpu_hint

PART_LABELS = {
    "model": gettext_lazy("policy"),
    "reward_model": gettext_lazy("reward model"),
    "critic": gettext_lazy("critic"),
    "other": gettext_lazy("models of earlier jobs"),
}


def checkpoint_rows(project: Project) -> dict[str, Any]:
    """Return the context of the checkpoint table, which is polled while a checkpoint waits for its check."""
    rows: list[Any] = list(reports.checkpoints_of(project).filter(retired_at__isnull=True))
    refusal = trials.reason_not_to_try(project)
    for checkpoint in rows:
        checkpoint.headlines = evaluations.headlines(checkpoint)
        checkpoint.fallen = guards.fallen(checkpoint)
        checkpoint.warning = guards.warning(checkpoint.fallen)
        checkpoint.trial_refusal = trials.reason_against(checkpoint) or refusal
    return {
        "checkpoints": rows,
        "can_evaluate": not reason_not_to_start(project, True, EVALUATE),
        "served": next((checkpoint for checkpoint in rows if checkpoint.is_served), None),
        "is_checking": any(checkpoint.verdict == Checkpoint.Verdict.WAITING for checkpoint in rows),
        "check_hint": gpu_hint(project),
    }


@login_required
@require_GET
def one_checkpoint(request: HttpRequest, slug: str, checkpoint_id: int) -> HttpResponse:
    """Show what people and evaluations say of a checkpoint."""
    membership = members.manager_of(request.user, slug)
    checkpoint = reports.checkpoint_of(membership.project, checkpoint_id)
    rounds = evaluations.evaluations_of(checkpoint)
    made_by = getattr(checkpoint, "round", None)
    fallen = guards.fallen(checkpoint)
    context = {
        "checkpoint": checkpoint,
        "served": membership.project.checkpoints.filter(is_served=True).first(),
        "warning": guards.warning(fallen),
        "rating": evaluations.rating_of(checkpoint),
        "evaluations": rounds,
        "history": evaluations.history_of(rounds),
        "divergences": guards.divergences_of(made_by) if made_by else [],
        "fallen": fallen,
        "can_retire": checkpoint.retired_at is None,
        "retire_refusal": retirement.reason_not_to_retire(checkpoint),
        "delete_refusal": retirement.reason_not_to_delete(checkpoint),
        "parts": parts_of(checkpoint),
        "can_evaluate": checkpoint.is_usable and not reason_not_to_start(membership.project, True, EVALUATE),
    }
    return render_page(request, membership, "checkpoint", context)


def parts_of(checkpoint: Checkpoint) -> list[tuple[Text, int]]:
    """Return the parts of its files that are not empty, with their bytes."""
    sizes = checkpoint.file_sizes or {}
    return [(label, sizes[part]) for part, label in PART_LABELS.items() if sizes.get(part)]


@login_required
@require_GET
@never_cache
def checkpoint_table(request: HttpRequest, slug: str) -> HttpResponse:
    """Return the checkpoint table as a fragment. The last response ends the polling and reloads the page."""
    membership = members.manager_of(request.user, slug)
    context = {"project": membership.project, **checkpoint_rows(membership.project)}
    response = render(request, "console/_checkpoints.html", context)
    if not context["is_checking"]:
        response.status_code = HttpResponseStopPolling.status_code
        response["HX-Refresh"] = "true"
    return response


@login_required
@require_POST
def promote(request: HttpRequest, slug: str, checkpoint_id: int) -> HttpResponse:
    membership = members.manager_of(request.user, slug)
    checkpoint = reports.checkpoint_of(membership.project, checkpoint_id)
    checkpoints.promote(checkpoint, request.user, confirmed="confirmed" in request.POST)
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
