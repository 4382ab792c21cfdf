"""Review page of the rankings that other rankings contradict, for reviewers and managers."""

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_POST

from feedback.actions import members
from training.reward_reports import surprising

ROWS_PER_PAGE = 25


@login_required
@never_cache
@require_GET
def surprising_list(request: HttpRequest, slug: str) -> HttpResponse:
    """Show the list."""
    membership = members.reviewer_of(request.user, slug)
    rows = Paginator(surprising.surprising(membership.project), ROWS_PER_PAGE).get_page(request.GET.get("page"))
    context = {
        "project": membership.project,
        "membership": membership,
        "page": "review",
        "tab": "surprising",
        "rows": rows,
        "report": surprising.reports_of(membership.project).first(),
    }
    return render(request, "review/surprising.html", context)


@login_required
@require_POST
def keep(request: HttpRequest, slug: str, comparison_id: int) -> HttpResponse:
    surprising.keep(members.reviewer_of(request.user, slug), comparison_id)
    messages.success(request, _("Kept as it is."))
    return redirect("review-surprising", slug)
