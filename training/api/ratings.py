"""Rounds by distance from the imported model, with the reward model's score and people's rating, for managers."""

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from feedback.actions import members
from feedback.api import strict
from feedback.api.ratings import CoefficientSerializer, RatingsQuery
from feedback.api.views import api_view
from feedback.reports import source_ratings
from training.over_optimisation import Finding, RoundPoint, points_of


class RoundPointSerializer(strict.Serializer):
    """The checkpoint of a round. A figure is null if it was not measured."""

    number = serializers.IntegerField()
    source = serializers.CharField()
    kl_from_root = CoefficientSerializer(allow_null=True, help_text="From the imported model, nats per completion.")
    reward_gain = CoefficientSerializer(
        allow_null=True, help_text="Over the round's reference, if the reward model alone is the reward."
    )
    reward = CoefficientSerializer(allow_null=True, help_text="Sum of the gains since the imported model.")
    rating = CoefficientSerializer(allow_null=True, help_text="People's rating minus that of the imported model.")
    rise = CoefficientSerializer(allow_null=True, help_text="People's rating minus that of the round's reference.")
    win_rate = CoefficientSerializer(
        allow_null=True, help_text="Share of wins against the imported model, without ties, by the rating."
    )
    best_of_n = serializers.FloatField(
        allow_null=True, help_text="Win rate of the best of n of the imported model at the same KL divergence."
    )
    finding = serializers.ChoiceField(
        [finding.value for finding in Finding],
        help_text="falls or flat: the reward model's score rises and people's rating falls or does not rise "
        "noticeably; rises: both rise; undecided: the intervals are too wide; no_gain: the score is not shown to rise, "
        "or not rated by people.",
    )


@extend_schema(operation_id="rating_rounds", parameters=[RatingsQuery], responses=RoundPointSerializer(many=True))
@api_view(["GET"])
def rating_rounds(request: Request, slug: str) -> Response:
    """Return the finished rounds with a checkpoint: KL divergence, reward and people's rating, and over-optimisation.

    The upper bounds of people's rating behind `falls` and `flat` are corrected for the number of rounds: where people's
    rating rises to 55 % of wins or more in every round, at most one project in twenty has any such round.
    """
    project = members.manager_of(request.user, slug).project
    with_style = strict.validated_query(RatingsQuery, request)["style"]
    result = source_ratings.get_ratings(project, with_style=with_style)
    points = [point_body(point) for point in points_of(project, result.ratings)]
    return Response(RoundPointSerializer(points, many=True).data)


def point_body(point: RoundPoint) -> dict[str, Any]:
    """Return the fields of a round."""
    return {
        **vars(point),
        "source": point.name,
        "kl_from_root": point.kl,
        "reward_gain": point.gain,
        "win_rate": point.win_rate,
        "best_of_n": point.best_of_n,
        "finding": point.finding.value,
    }
