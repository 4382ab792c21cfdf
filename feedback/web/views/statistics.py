"""Figures: everybody's for managers, one's own for each member."""

from collections.abc import Sequence

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET

from feedback.actions import members
from feedback.quality.agreement import Estimate
from feedback.reports import statistics

BAR, HEIGHT = 10, 28  # of a day in the small picture, in its own units


@login_required
@never_cache
@require_GET
def everybody(request: HttpRequest, slug: str) -> HttpResponse:
    membership = members.manager_of(request.user, slug)
    found = statistics.of_everybody(membership.project)
    rows = [{"person": each, "bars": _bars(each.days)} for each in found]
    total = {
        "today": sum(each.done.today for each in found),
        "week": sum(each.done.week for each in found),
        "total": sum(each.done.total for each in found),
        "taken_out": sum(each.done.taken_out for each in found),
        "flagged": sum(each.is_flagged for each in found),
    }
    context = {"project": membership.project, "membership": membership, "page": "figures", "rows": rows, "total": total}
    context |= {"counted": found[0]}  # a project has its manager at least
    return render(request, "figures/everybody.html", context)


@login_required
@never_cache
@require_GET
def mine(request: HttpRequest, slug: str) -> HttpResponse:
    membership = members.membership_of(request.user, slug)
    own = statistics.own(membership)
    context = {"project": membership.project, "membership": membership, "page": "own-figures", "own": own}
    interval = _percents(own.agreement) if own.agreement and own.agreement.value is not None else {}
    return render(request, "figures/mine.html", context | {"bars": _bars(own.days)} | interval)


def _percents(estimate: Estimate) -> dict[str, int]:
    return {"low": round(100 * (estimate.low or 0)), "high": round(100 * (estimate.high or 0))}


def _bars(days: Sequence[int]) -> list[dict[str, float]]:
    """Bars of a small picture, the tallest of them as tall as it is."""
    most = max(days) or 1
    heights = [HEIGHT * count / most for count in days]
    return [
        {"x": BAR * place, "y": HEIGHT - height, "height": height, "count": count}
        for place, (height, count) in enumerate(zip(heights, days, strict=True))
    ]
