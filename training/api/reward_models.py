"""Reports on the reward models of rounds, and the surprising rankings for review."""

from typing import Any

from django.utils.translation import gettext as _
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from feedback.actions import members
from feedback.api import strict
from feedback.api.review import DecisionSerializer, PageQuery
from feedback.api.views import api_view
from feedback.errors import NotFound
from training.models import RewardReport
from training.reward_reports import surprising

POSITION_HELP = "Position in the comparison, from 0."


class ShareSerializer(strict.Serializer):
    """A share of pairs with its 95 % interval for pairs that depend on each other by prompt."""

    value = serializers.FloatField()
    low = serializers.FloatField()
    high = serializers.FloatField()
    pairs = serializers.IntegerField(help_text="Number of pairs.")
    prompts = serializers.IntegerField(help_text="Number of prompts.")


class BinSerializer(strict.Serializer):
    """A bin of the model's confidence: its probability of the completion that it prefers."""

    confidence = serializers.FloatField(help_text="Mean in the bin.")
    share = ShareSerializer(help_text="How often people prefer the same completion.")

    def get_fields(self) -> dict[str, serializers.Field]:
        bounds = {name: serializers.FloatField() for name in ("from", "to")}  # "from" is a keyword of Python
        return {**bounds, **super().get_fields()}


class AccuracySliceSerializer(strict.Serializer):
    kind = serializers.ChoiceField(
        ["ties", "strength", "flag", "preferred", "length_difference", "length", "metadata"],
        help_text="flag: of the ranking. preferred: by which completion is longer. length: of the prompt.",
    )
    key = serializers.CharField(help_text="Of the metadata; otherwise empty.")
    value = serializers.CharField(help_text="Of flags, empty: rankings without a flag.")
    share = ShareSerializer(allow_null=True)


class TiesSerializer(strict.Serializer):
    pairs = serializers.IntegerField(help_text="Number of pairs, tied or not.")
    tied = serializers.IntegerField(help_text="Number of tied pairs.")
    share = serializers.FloatField(allow_null=True)
    predicted = serializers.FloatField(allow_null=True, help_text="Mean probability of a tie over all pairs.")
    predicted_where_tied = serializers.FloatField(allow_null=True, help_text="The same over the tied pairs.")


class SourceScoresSerializer(strict.Serializer):
    source = serializers.CharField()
    completions = serializers.IntegerField(help_text="Number of its completions in held-out rankings.")
    mean = serializers.FloatField()
    deviation = serializers.FloatField()
    counts = serializers.ListField(child=serializers.IntegerField(), help_text="One for each bin.")


class HistogramSerializer(strict.Serializer):
    """Normalised scores of the completions of held-out rankings."""

    edges = serializers.ListField(child=serializers.FloatField())
    sources = SourceScoresSerializer(many=True)
    left_out = serializers.IntegerField(help_text="Number of further sources.")


class MistakeSerializer(strict.Serializer):
    """A held-out pair that the model orders otherwise than the annotator."""

    comparison = serializers.IntegerField()
    ranking = serializers.IntegerField()
    prompt = serializers.IntegerField()
    preferred = serializers.IntegerField(help_text=POSITION_HELP)
    other = serializers.IntegerField(help_text=POSITION_HELP)
    probability = serializers.FloatField(help_text="Of the annotator's choice, by the model.")


class RewardReportSerializer(strict.Serializer):
    """The reward model of a round on held-out prompts. A figure is null where there is nothing to count."""

    round = serializers.IntegerField()
    accuracy = ShareSerializer(allow_null=True, help_text="Pairs that the model orders as the annotator did.")
    agreement = ShareSerializer(allow_null=True, help_text="Equal preferences of two people, on the same comparisons.")
    best_possible_accuracy = serializers.FloatField(
        allow_null=True, help_text="Of any model that predicts one person, at this agreement."
    )
    expected_calibration_error = serializers.FloatField(allow_null=True)
    calibration = BinSerializer(many=True)
    slices = AccuracySliceSerializer(many=True)
    ties = TiesSerializer()
    histogram = HistogramSerializer(allow_null=True)
    mistakes = MistakeSerializer(many=True, help_text="The surest first, at most one of a comparison.")
    scored_rankings = serializers.IntegerField(help_text="Number of rankings with a surprise.")
    created_at = serializers.DateTimeField()


class SurprisingSerializer(strict.Serializer):
    place = serializers.IntegerField(help_text="In the list of the report: 1 has the highest surprise.")
    surprise = serializers.FloatField(
        help_text="Mean log-odds of the other order of its pairs, in nats, by models that have not learned from its "
        "prompt and by the other rankings of its comparison. Above 0 they prefer the reversed ranking."
    )
    ranking = serializers.IntegerField(source="ranking_id")
    comparison = serializers.IntegerField(source="ranking.comparison_id")
    annotator = serializers.CharField(source="ranking.annotator.username")
    round = serializers.IntegerField(source="report.round.number")


def report_body(report: RewardReport) -> dict[str, Any]:
    """Return the fields of a report."""
    return {
        **report.figures,
        "round": report.round.number,
        "best_possible_accuracy": report.round.results.get("reward", {}).get("best_possible_accuracy"),
        "scored_rankings": report.scored_rankings,
        "created_at": report.created_at,
    }


@extend_schema(operation_id="round_reward_model", responses=RewardReportSerializer)
@api_view(["GET"])
def reward_model(request: Request, slug: str, number: int) -> Response:
    """Return the report on the reward model of a round."""
    project = members.manager_of(request.user, slug).project
    report = surprising.reports_of(project).filter(round__number=number).first()
    if report is None:
        raise NotFound(_("This round has no report on a reward model."))
    return Response(RewardReportSerializer(report_body(report)).data)


@extend_schema(operation_id="review_surprising", parameters=[PageQuery], responses=SurprisingSerializer(many=True))
@api_view(["GET"])
def surprising_list(request: Request, slug: str) -> Response:
    """List the rankings that other rankings contradict, the highest surprise first.

    Of the newest reward model, those with a surprise above 0 in the highest quarter, at most 5,000. A ranking leaves
    the list when it is revised, discarded, returned or overruled, or its comparison is kept.
    """
    project = members.reviewer_of(request.user, slug).project
    query = strict.validated_query(PageQuery, request)
    rows = surprising.surprising(project)[query["offset"] : query["offset"] + query["limit"]]
    return Response(SurprisingSerializer(rows, many=True).data)


@extend_schema(operation_id="review_surprising_keep", request=None, responses={201: DecisionSerializer})
@api_view(["POST"], commits=True)
def surprising_keep(request: Request, slug: str, comparison_id: int) -> Response:
    """Keep the rankings of a comparison as they are: they leave the list and still count."""
    membership = members.reviewer_of(request.user, slug)
    return Response(DecisionSerializer(surprising.keep(membership, comparison_id)).data, status=201)
