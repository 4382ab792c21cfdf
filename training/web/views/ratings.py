"""Page of the ratings of all sources, for managers, and the same figures as files."""

import csv
import io
from typing import Any

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET

from feedback.actions import members
from feedback.api.ratings import RatingsSerializer, ratings_body
from feedback.errors import NotComputedYet
from feedback.models import Project, Source
from feedback.reports import source_ratings
from feedback.reports.source_ratings import SourceRatings
from training import over_optimisation
from training.api.ratings import RoundPointSerializer, point_body
from training.models import Round
from training.web import rating_rows
from training.web.presenters import render_page

CSV_COLUMNS = ("source", "kind", "round", "status", "rating", "low", "high", "rankings", "wins", "ties", "losses")


@login_required
@require_GET
@never_cache
def ratings(request: HttpRequest, slug: str) -> HttpResponse:
    """Show the ratings. `?style=on` controls them for style; `?source=` and `?other=` choose the slices' sources."""
    membership = members.manager_of(request.user, slug)
    project, with_style = membership.project, request.GET.get("style") == "on"
    try:
        result = source_ratings.get_ratings(project, with_style=with_style)
        styled = result if with_style else source_ratings.get_ratings(project, with_style=True)
    except NotComputedYet as refusal:
        return render_page(request, membership, "ratings", {"refusal": refusal.message})
    context = {
        "with_style": with_style,
        "result": result,
        "rows": rating_rows.source_rows(result, _rounds(project)),
        "matrix": rating_rows.matrix_rows(result),
        "bias": rating_rows.bias_sentence(result.ratings),
        "ties": rating_rows.ties_sentence(result.ratings),
        "length": rating_rows.length_sentence(styled.ratings),
        "style": [(rating_rows.style_label(one.name), one) for one in styled.ratings.style if one.value is not None],
        **_slices(request, project, result),
        **_round_context(project, result),
    }
    return render_page(request, membership, "ratings", context)


def _rounds(project: Project) -> dict[int, int]:
    """Return the number of the round that made each checkpoint, by the checkpoint's source."""
    made = project.rounds.filter(status=Round.Status.FINISHED, checkpoint__isnull=False)
    return dict(made.values_list("checkpoint__source_id", "number"))


def _round_context(project: Project, result: SourceRatings) -> dict[str, Any]:
    points = over_optimisation.points_of(project, result.ratings)
    findings = rating_rows.finding_sentences(points)
    return {
        "rounds": points,
        "findings": findings,
        "no_finding": "" if findings or not points else rating_rows.no_finding_sentence(points),
        **rating_rows.round_charts(points),
    }


def _slices(request: HttpRequest, project: Project, result: SourceRatings) -> dict[str, Any]:
    """Return the context of the slices: of the chosen sources, or of the two with most preferences."""
    if not result.win_rates:
        return {}
    by_name = {source.name: source for source in result.sources.values()}
    source, other = by_name.get(request.GET.get("source", "")), by_name.get(request.GET.get("other", ""))
    if source is None or other is None:
        source, other = _most_compared(result)
    slices = source_ratings.get_slices(project, source.pk, other.pk)
    met = sorted({pk for rate in result.win_rates for pk in (rate.source_id, rate.other_id)})
    return {
        "slice_source": source,
        "slice_other": other,
        "slice_sources": [result.sources[pk] for pk in met],
        "slice_rate": result.win_rate(source.pk, other.pk),
        "slice_rows": rating_rows.slice_rows(slices.rates),
        "slices_are_stored": slices.is_stored,
    }


def _most_compared(result: SourceRatings) -> tuple[Source, Source]:
    """Return the two sources with most preferences between them, the newer one first."""
    most = max(result.win_rates, key=lambda rate: rate.preferences)
    return result.sources[most.other_id], result.sources[most.source_id]


@login_required
@require_GET
@never_cache
def download(request: HttpRequest, slug: str, kind: str) -> HttpResponse:
    """Return the ratings as a file. kind: "json" or "csv"."""
    project = members.manager_of(request.user, slug).project
    result = source_ratings.get_ratings(project, with_style=request.GET.get("style") == "on")
    if kind == "json":
        points = over_optimisation.points_of(project, result.ratings)
        body = RatingsSerializer(ratings_body(result)).data
        rounds = RoundPointSerializer([point_body(point) for point in points], many=True).data
        response: HttpResponse = JsonResponse({**body, "rounds": rounds})
    else:
        response = HttpResponse(_as_csv(project, result), content_type="text/csv; charset=utf-8")
    response["Content-Disposition"] = f'attachment; filename="{slug}-ratings.{kind}"'
    return response


def _as_csv(project: Project, result: SourceRatings) -> str:
    """Return a row for each source, with empty fields where it has no rating."""
    status = {rating.source_id: rating.status.value for rating in result.ratings.ratings}
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow(CSV_COLUMNS)
    for row in rating_rows.source_rows(result, _rounds(project)):
        interval = (row.rating.value, row.rating.low, row.rating.high) if row.rating else ("", "", "")
        number = "" if row.round is None else row.round
        state = status.get(row.source.pk, "disconnected")
        writer.writerow((row.source.name, row.source.kind, number, state, *interval, row.rankings, *row.counts))
    return file.getvalue()
