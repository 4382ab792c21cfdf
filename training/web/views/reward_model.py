"""Page of the reward models of the rounds, for managers."""

from typing import Any

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET

from feedback.actions import members
from feedback.errors import NotFound
from feedback.models import Project
from feedback.reports import quality_snapshot
from training.api.reward_models import RewardReportSerializer, report_body
from training.models import RewardReport
from training.reward_reports.surprising import reports_of, surprising
from training.web import reward_rows
from training.web.presenters import render_page

SURPRISING_ROWS = 5  # of the list, on this page
MISTAKE_ROWS = 5  # before the others unfold


@login_required
@require_GET
@never_cache
def reward_model(request: HttpRequest, slug: str) -> HttpResponse:
    """Show the report on the reward model of the newest round that has one, or of `?round=<number>`."""
    membership = members.manager_of(request.user, slug)
    project = membership.project
    report = _report(project, request.GET.get("round", ""))
    context: dict[str, Any] = {"tab": "reward-model", "report": report}
    if report is not None:
        context |= _context(project, report)
    return render_page(request, membership, "reward_model", context)


def _context(project: Project, report: RewardReport) -> dict[str, Any]:
    figures = report.figures
    mistakes = reward_rows.mistakes_of(project, figures)
    waiting = surprising(project)
    return {
        "figures": figures,
        "numbers": list(reports_of(project).values_list("round__number", flat=True)),
        "compared": reward_rows.comparison_rows(report, quality_snapshot.get_quality(project).agreement.pairwise),
        "ceiling": reward_rows.ceiling_sentence(figures),
        "ties": reward_rows.ties_sentence(figures),
        "calibration": reward_rows.calibration_sentence(report),
        "calibration_chart": reward_rows.calibration_chart(figures),
        "bins": reward_rows.calibration_rows(figures),
        "slices": reward_rows.slice_rows(figures),
        "sources": reward_rows.source_rows(figures),
        "mistakes": mistakes[:MISTAKE_ROWS],
        "more_mistakes": mistakes[MISTAKE_ROWS:],
        "surprising": waiting[:SURPRISING_ROWS],
        "waiting": waiting.count(),
    }


def _report(project: Project, number: str) -> RewardReport | None:
    """Return the report of a round, by default of the newest; None if there is none. Raise NotFound for another one."""
    reports = reports_of(project)
    if not number:
        return reports.first()
    report = reports.filter(round__number=int(number)).first() if number.isdecimal() and len(number) < 9 else None
    if report is None:
        raise NotFound(_("This round has no report on a reward model."))
    return report


@login_required
@require_GET
@never_cache
def download(request: HttpRequest, slug: str, number: int) -> HttpResponse:
    """Return the report of a round as a JSON file."""
    report = _report(members.manager_of(request.user, slug).project, str(number))
    assert report is not None, "a number gives a report or NotFound"
    response = JsonResponse(RewardReportSerializer(report_body(report)).data)
    response["Content-Disposition"] = f'attachment; filename="{slug}-reward-model-{number}.json"'
    return response
