"""Ratings of the sources of completions, for managers."""

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from feedback.actions import members
from feedback.api import strict
from feedback.api.views import api_view
from feedback.models import Source
from feedback.reports import source_ratings


class RatingsQuery(strict.Serializer):
    style = serializers.BooleanField(
        default=False, help_text="Rate the sources as if they wrote completions of the same length."
    )


class CoefficientSerializer(strict.Serializer):
    """A number in log-odds with its 95 % interval. It is null if the rankings do not determine it."""

    value = serializers.FloatField(allow_null=True)
    low = serializers.FloatField(allow_null=True, help_text="Null, with a value: too few rankings for an interval.")
    high = serializers.FloatField(allow_null=True)


class StyleCoefficientSerializer(CoefficientSerializer):
    name = serializers.CharField(help_text="log_length: natural logarithm of the number of characters plus 1.")


class SourceRatingSerializer(CoefficientSerializer):
    """The rating of a source: a difference d in ratings wins a share 1/(1 + e⁻ᵈ) of the preferences without ties."""

    source = serializers.CharField()
    kind = serializers.ChoiceField(Source.Kind.choices)
    status = serializers.CharField(
        help_text="rated; or the reason why it is not: only_wins, only_losses, disconnected (no path of wins or ties "
        "leads both to the rated sources and back), undetermined (the likelihood has no finite maximum).",
    )
    wins = serializers.IntegerField(help_text="Preferences over other sources.")
    ties = serializers.IntegerField()
    losses = serializers.IntegerField()


class CountsSerializer(strict.Serializer):
    """Counts of preferences by two sources, in the order of `sources`."""

    sources = serializers.ListField(child=serializers.CharField())
    wins = serializers.ListField(
        child=serializers.ListField(child=serializers.IntegerField()),
        help_text="Row by row: preferences for the row's source over the column's.",
    )
    ties = serializers.ListField(child=serializers.ListField(child=serializers.IntegerField()))


class CovarianceSerializer(strict.Serializer):
    """Covariance of the ratings. An interval is value ± quantile · standard error, also of a difference of ratings."""

    sources = serializers.ListField(child=serializers.CharField())
    values = serializers.ListField(
        child=serializers.ListField(child=serializers.FloatField()),
        help_text="Empty: too few rankings for intervals.",
    )
    quantile = serializers.FloatField()


class RatingsSerializer(strict.Serializer):
    """Ratings by Bradley and Terry's model with Davidson's ties over all live rankings; their mean is 0."""

    ratings = SourceRatingSerializer(many=True, help_text="The best source first; those without a rating last.")
    counts = CountsSerializer()
    covariance = CovarianceSerializer()
    style = StyleCoefficientSerializer(many=True, help_text="Log-odds per unit of style; empty without `style`.")
    first_shown = CoefficientSerializer(
        allow_null=True, help_text="Log-odds that the completion shown first gains; null: no source is rated."
    )
    log_nu = CoefficientSerializer(
        allow_null=True, help_text="Logarithm of Davidson's ν: of two equal sources ν/(2 + ν) are ties; null: no ties."
    )
    preferences = serializers.IntegerField(help_text="Pairs of completions by different sources that were ranked.")
    prompts = serializers.IntegerField()
    annotators = serializers.IntegerField()
    covers_annotators = serializers.BooleanField(
        help_text="Whether the intervals include differences between annotators. If not (fewer than 6 annotators), "
        "they hold for these annotators only."
    )


@extend_schema(operation_id="ratings", parameters=[RatingsQuery], responses=RatingsSerializer)
@api_view(["GET"])
def ratings_detail(request: Request, slug: str) -> Response:
    """Return the ratings of all sources of ranked completions, with intervals and the counts behind them.

    Ratings use the annotators' live rankings, without gold, extra rankings and adjudications. They are computed at each
    request; a record of more than 100,000 rankings is refused.
    """
    project = members.manager_of(request.user, slug).project
    with_style = strict.validated_query(RatingsQuery, request)["style"]
    return Response(RatingsSerializer(_body(source_ratings.get_ratings(project, with_style=with_style))).data)


def _body(result: source_ratings.SourceRatings) -> dict[str, Any]:
    ratings, sources = result.ratings, result.sources

    def names(ids: list[int]) -> list[str]:
        return [sources[source_id].name for source_id in ids]

    by_source = [
        {
            **vars(rating),
            "source": sources[rating.source_id].name,
            "kind": sources[rating.source_id].kind,
            "status": rating.status.value,
        }
        for rating in ratings.ratings
    ]
    return {
        **vars(ratings),
        "ratings": by_source,
        "counts": {"sources": names(ratings.sources), "wins": ratings.wins, "ties": ratings.ties},
        "covariance": {
            "sources": names(ratings.rated),
            "values": ratings.covariance,
            "quantile": ratings.quantile,
        },
    }
