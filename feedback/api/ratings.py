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
from feedback.quality.ratings import SliceRate, WinRate
from feedback.reports import source_ratings


class RatingsQuery(strict.Serializer):
    style = serializers.BooleanField(
        default=False, help_text="Rate the sources as if they wrote completions of the same length and formatting."
    )


class CoefficientSerializer(strict.Serializer):
    """A number in log-odds with its 95 % interval. It is null if the rankings do not determine it."""

    value = serializers.FloatField(allow_null=True)
    low = serializers.FloatField(allow_null=True, help_text="Null, with a value: too few rankings for an interval.")
    high = serializers.FloatField(allow_null=True)


class StyleCoefficientSerializer(CoefficientSerializer):
    name = serializers.CharField(
        help_text="log_length, log_headings, log_list_items, log_bold: natural logarithm of the number of characters, "
        "headings, list items or bold passages plus 1."
    )


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
    rankings = serializers.IntegerField(help_text="Rankings with a completion of this source.")


class PairRateSerializer(strict.Serializer):
    """Share of the preferences between two sources for the first, a tie as half of one, with its 95 % interval."""

    value = serializers.FloatField()
    low = serializers.FloatField()
    high = serializers.FloatField()
    wins = serializers.IntegerField()
    ties = serializers.IntegerField()
    losses = serializers.IntegerField()
    prompts = serializers.IntegerField()


class WinRateSerializer(PairRateSerializer):
    """The rate of a named pair of sources."""

    source = serializers.CharField()
    other = serializers.CharField()


class SlicesQuery(strict.Serializer):
    source = serializers.CharField()
    other = serializers.CharField()


class SliceSerializer(WinRateSerializer):
    """The win rate on a slice of the prompts."""

    kind = serializers.ChoiceField(["split", "length", "metadata"])
    key = serializers.CharField(help_text="Key of the prompts' metadata; empty for the other kinds.", allow_blank=True)
    slice = serializers.CharField(help_text="Value; of lengths the first and last number of characters.")
    difference = serializers.FloatField(
        allow_null=True, help_text="Win rate on the slice minus that on the other prompts; null: too few prompts."
    )
    p_value = serializers.FloatField(
        allow_null=True, help_text="That the difference is 0, with Holm's correction for the number of slices."
    )


class SlicesSerializer(strict.Serializer):
    """Win rates of a source against another by slice of the prompts."""

    slices = SliceSerializer(many=True)
    as_of = serializers.DateTimeField()
    is_current = serializers.BooleanField()
    is_stored = serializers.BooleanField(
        help_text="False: the record is long, and these two sources are not among the 30 with most preferences."
    )


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
    win_rates = WinRateSerializer(many=True, help_text="Of every two sources that met, once.")
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
    as_of = serializers.DateTimeField(help_text="When the ratings were computed.")
    is_current = serializers.BooleanField(help_text="Whether no ranking has changed since then.")


@extend_schema(operation_id="ratings", parameters=[RatingsQuery], responses=RatingsSerializer)
@api_view(["GET"])
def ratings_detail(request: Request, slug: str) -> Response:
    """Return the ratings of all sources of ranked completions, with intervals and the counts behind them.

    Ratings use the annotators' live rankings, without gold, extra rankings and adjudications. Up to 20,000 rankings
    they are computed at each request. Above, a worker computes and stores them; before, the answer is 409.
    """
    project = members.manager_of(request.user, slug).project
    with_style = strict.validated_query(RatingsQuery, request)["style"]
    return Response(RatingsSerializer(ratings_body(source_ratings.get_ratings(project, with_style=with_style))).data)


@extend_schema(operation_id="rating_slices", parameters=[SlicesQuery], responses=SlicesSerializer)
@api_view(["GET"])
def rating_slices(request: Request, slug: str) -> Response:
    """Return the win rates of a source against another by split, length and metadata of the prompts.

    Slices with fewer than 10 prompts, and keys of the metadata with more than 12 values, are left out.
    """
    project = members.manager_of(request.user, slug).project
    query = strict.validated_query(SlicesQuery, request)
    source, other = (source_ratings.source_named(project, query[name]) for name in ("source", "other"))
    result = source_ratings.get_slices(project, source.pk, other.pk)
    names = {source.pk: source.name, other.pk: other.name}
    return Response(SlicesSerializer(vars(result) | {"slices": [slice_body(one, names) for one in result.rates]}).data)


def slice_body(one: SliceRate, names: dict[int, str]) -> dict[str, Any]:
    """Return the fields of a win rate on a slice."""
    fields = {"kind": one.kind, "key": one.key, "slice": one.value}
    return {**win_rate_body(one.rate, names), **fields, "difference": one.difference, "p_value": one.p_value}


def win_rate_body(rate: WinRate, names: dict[int, str]) -> dict[str, Any]:
    """Return the fields of a win rate."""
    return {**vars(rate), "source": names[rate.source_id], "other": names[rate.other_id]}


def ratings_body(result: source_ratings.SourceRatings) -> dict[str, Any]:
    """Return the fields of the ratings, with sources by name."""
    ratings, names = result.ratings, {source_id: source.name for source_id, source in result.sources.items()}
    by_source = [
        {
            **vars(rating),
            "source": names[rating.source_id],
            "kind": result.sources[rating.source_id].kind,
            "status": rating.status.value,
            "rankings": result.rankings[rating.source_id],
        }
        for rating in ratings.ratings
    ]
    return {
        **vars(ratings),
        "ratings": by_source,
        "counts": {"sources": [names[pk] for pk in ratings.sources], "wins": ratings.wins, "ties": ratings.ties},
        "win_rates": [win_rate_body(rate, names) for rate in result.win_rates],
        "covariance": {
            "sources": [names[pk] for pk in ratings.rated],
            "values": ratings.covariance,
            "quantile": ratings.quantile,
        },
        "as_of": result.as_of,
        "is_current": result.is_current,
    }
