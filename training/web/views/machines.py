"""The page of the workers: a tab of the console for managers, and a page of the site for administrators."""

from typing import Any

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET

from feedback.actions import members
from feedback.models import Membership
from training.web.presenters import render_page
from training.workers import report
from training.workers.report import Machines


@login_required
@require_GET
@never_cache
def machines(request: HttpRequest, slug: str) -> HttpResponse:
    """Show the workers, without names of other projects; for htmx, the part of the page that changes."""
    membership = members.manager_of(request.user, slug)
    return _answer(request, report.machines_of(membership.project), membership)


@login_required
@require_GET
@never_cache
def site_machines(request: HttpRequest) -> HttpResponse:
    """Show the workers and all that they run."""
    members.check_administrator(request.user, _("Only administrators of this site may open this page."))
    return _answer(request, report.machines())


def _answer(request: HttpRequest, machines: Machines, membership: Membership | None = None) -> HttpResponse:
    context: dict[str, Any] = {"machines": machines}
    if request.headers.get("HX-Request"):
        return render(request, "console/_machines.html", context)
    if membership is None:
        return render(request, "console/machines.html", context)
    return render_page(request, membership, "machines", context)
