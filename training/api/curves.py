"""Curves of a round's metrics, thinned as on its page, for managers."""

from typing import Any

from django.utils.translation import gettext as _
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from feedback.actions import members
from feedback.api import strict
from feedback.api.views import api_view
from feedback.errors import NotFound
from training import curves, reports

MIN_POINTS, MAX_POINTS = 4, 2 * curves.MAX_COLUMNS + 2
POINTS = 2 * curves.COLUMNS + 2  # by default


class CurvesQuery(strict.Serializer):
    points = serializers.IntegerField(
        required=False, default=POINTS, min_value=MIN_POINTS, max_value=MAX_POINTS, help_text="Most values of a curve."
    )
    job = serializers.CharField(required=False, help_text='Curves of this job only, such as "policy".')
    first = serializers.IntegerField(required=False, min_value=0, max_value=curves.MAX_STEP, help_text="First step.")
    last = serializers.IntegerField(required=False, min_value=0, max_value=curves.MAX_STEP, help_text="Last step.")
    after = serializers.IntegerField(
        required=False,
        min_value=0,
        max_value=2**63 - 1,
        help_text="`after` of the answer before: only values that are newer. Not with first and last.",
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if "after" in attrs and ("first" in attrs or "last" in attrs):
            raise serializers.ValidationError("Leave out either after, or first and last.")
        return attrs


class CurveSerializer(strict.Serializer):
    """A metric of a job. Of each range of steps the lowest and the highest value are kept, and the ends."""

    job = serializers.CharField()
    metric = serializers.CharField()
    steps = serializers.ListField(child=serializers.IntegerField())
    values = serializers.ListField(child=serializers.FloatField(), help_text="Six significant digits.")


class CurvesSerializer(strict.Serializer):
    """Curves of a round. To follow it, ask again with `after` of the last answer until `ended`."""

    curves = CurveSerializer(many=True)
    is_whole = serializers.BooleanField(
        help_text="True: whole curves. False: values to append. A resumed program repeats steps: a value replaces "
        "those of its step and of later ones."
    )
    after = serializers.IntegerField(help_text="For the next question.")
    ended = serializers.BooleanField()


@extend_schema(operation_id="rounds_curves", parameters=[CurvesQuery], responses=CurvesSerializer)
@api_view(["GET"])
def round_curves(request: Request, slug: str, number: int) -> Response:
    """Return the curves of a round, thinned to at most `points` values each, or with `after` the newer values.

    With more than 500 newer steps than `after`, the answer has whole curves again.
    """
    round_ = reports.round_of(members.manager_of(request.user, slug).project, number)
    query = strict.validated_query(CurvesQuery, request)
    names = curves.names_of(round_)
    if (job := query.get("job")) is not None:
        if job not in names:
            raise NotFound(_("Round %(number)s has no such curve.") % {"number": number})
        names = {job: names[job]}
    answer = _newer(round_, names, query["after"]) if "after" in query else None
    if answer is None:
        until, span = curves.last_id(round_), curves.Span(query.get("first"), query.get("last"))
        thinned = curves.thinned(round_, names, until, (query["points"] - 2) // 2, span)
        answer = {"curves": thinned, "is_whole": True, "after": until}
    return Response(CurvesSerializer({**answer, "ended": not round_.is_active}).data)


def _newer(round_: curves.Round, names: curves.Names, after: int) -> dict[str, Any] | None:
    """Return the values of lines with ids above `after`, by curve; None if they are too many."""
    news = curves.new_lines(round_, names, after)
    if news["lines"] is None:
        return None
    newer: dict[tuple[str, str], dict[str, Any]] = {}
    for line in news["lines"]:
        for metric, value in line["values"].items():
            blank = {"job": line["job"], "metric": metric, "steps": [], "values": []}
            curve = newer.setdefault((line["job"], metric), blank)
            curve["steps"].append(line["step"])
            curve["values"].append(value)
    return {"curves": list(newer.values()), "is_whole": False, "after": news["after"]}
