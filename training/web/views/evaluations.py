"""Pages of evaluations, for managers: the start for a checkpoint, and the table as a file."""

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_POST

from feedback.actions import members
from feedback.errors import NotFound
from training import evaluations, reports


@login_required
@require_POST
def evaluate(request: HttpRequest, slug: str, checkpoint_id: int) -> HttpResponse:
    """Start a round that evaluates the checkpoint."""
    membership = members.manager_of(request.user, slug)
    checkpoint = reports.checkpoint_of(membership.project, checkpoint_id)
    started = evaluations.evaluate(membership.project, membership.user, checkpoint)
    return redirect("round", slug, started.number)


@login_required
@require_GET
@never_cache
def download(request: HttpRequest, slug: str, number: int, kind: str) -> HttpResponse:
    """Return the table of an evaluation as a file. kind: "json" or "csv"."""
    round_ = reports.round_of(members.manager_of(request.user, slug).project, number)
    if not evaluations.figures_of(round_):
        raise NotFound(_("Round %(number)s has no figures of an evaluation.") % {"number": number})
    if kind == "json":
        response: HttpResponse = JsonResponse(evaluations.as_json(round_))
    else:
        response = HttpResponse(evaluations.as_csv(round_), content_type="text/csv; charset=utf-8")
    response["Content-Disposition"] = f'attachment; filename="{slug}-round-{number}.{kind}"'
    return response
