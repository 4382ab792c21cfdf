"""Pages with figures: of all annotators for managers, of oneself for each member."""

from collections.abc import Sequence

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET

from feedback.actions import members
from feedback.quality.agreement import Estimate
from feedback.reports import statistics

BAR_WIDTH, MAX_BAR_HEIGHT = 10, 28  # in units of the chart's viewBox


@login_required
@never_cache
@require_GET
def everybody(request: HttpRequest, slug: str) -> HttpResponse:
    membership = members.manager_of(request.user, slug)
    persons = statistics.figures_of_everybody(membership.project)
    rows = [{"person": person, "bars": _bars(person.days)} for person in persons]
    total = {
        "today": sum(person.done.today for person in persons),
        "week": sum(person.done.week for person in persons),
        "total": sum(person.done.total for person in persons),
        "taken_out": sum(person.done.taken_out for person in persons),
        "flagged": sum(person.is_flagged for person in persons),
    }
    context = {"project": membership.project, "membership": membership, "page": "figures", "rows": rows, "total": total}
    context |= {"counted": persons[0]}  # not empty: a project has at least its manager
    return render(request, "figures/everybody.html", context)


@login_required
@never_cache
@require_GET
def mine(request: HttpRequest, slug: str) -> HttpResponse:
    membership = members.membership_of(request.user, slug)
    figures = statistics.own_figures(membership)
    context = {"project": membership.project, "membership": membership, "page": "own-figures", "figures": figures}
    agreement = figures.agreement
    interval = _interval_in_percent(agreement) if agreement and agreement.value is not None else {}
    return render(request, "figures/mine.html", context | {"bars": _bars(figures.days)} | interval)


def _interval_in_percent(estimate: Estimate) -> dict[str, int]:
    return {"low": round(100 * (estimate.low or 0)), "high": round(100 * (estimate.high or 0))}


def _bars(days: Sequence[int]) -> list[dict[str, float]]:
    """Return the bars of the chart of rankings a day; the tallest has the chart's height."""
    highest = max(days) or 1
    bars = []
    for index, count in enumerate(days):
        height = MAX_BAR_HEIGHT * count / highest
        bars.append({"x": BAR_WIDTH * index, "y": MAX_BAR_HEIGHT - height, "height": height, "count": count})
    return bars
