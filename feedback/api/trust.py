"""Reliability of annotators and the verdict about the labels, for managers."""

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from feedback.actions import members
from feedback.api import strict
from feedback.api.agreement import AsOfSerializer
from feedback.api.views import api_view
from feedback.models import Reliability
from feedback.quality import reliability
from feedback.reports import trust


class ReliabilityQuery(strict.Serializer):
    as_of = serializers.IntegerField(
        default=None,
        allow_null=True,
        min_value=0,
        max_value=strict.MAX_BIGINT,
        help_text="Sequence of the report. Default: the latest report.",
    )


class AnnotatorReliabilitySerializer(strict.ModelSerializer):
    username = serializers.CharField(source="annotator.username")
    reliability = serializers.FloatField(
        source="value", help_text="1: orders pairs as the consensus does; ½: at random; 0: the opposite."
    )
    weight = serializers.FloatField(help_text="Weight of the annotator's rankings: 2 · reliability − 1, at least 0.")
    is_adversarial = serializers.BooleanField(help_text="Whether the whole interval is below ½.")
    shared = serializers.IntegerField(help_text="Comparisons that the annotator and others ranked.")
    gold = serializers.IntegerField(help_text="Gold comparisons that the annotator ranked.")

    class Meta:
        model = Reliability
        fields = ("username", "reliability", "low", "high", "weight", "is_adversarial", "shared", "gold")


class ReliabilitySerializer(strict.Serializer):
    as_of = serializers.IntegerField(
        source="until", allow_null=True, help_text="Sequence of the last ranking used; null: no estimate yet."
    )
    estimated_at = serializers.DateTimeField(source="created_at", allow_null=True)
    spread = serializers.FloatField(
        allow_null=True, help_text="Typical difference between the scores of two completions, in log-odds."
    )
    annotators = AnnotatorReliabilitySerializer(many=True)


class FlagSerializer(strict.Serializer):
    username = serializers.CharField()
    sign = serializers.CharField(
        source="check", help_text="random_clicker, gold_failure, position_bias, speed or opposite."
    )
    sentence = serializers.CharField()


class VerdictSerializer(AsOfSerializer):
    can_be_trusted = serializers.BooleanField(
        allow_null=True, help_text="Null: too little is known, or the labels can be trusted with care only."
    )
    sentence = serializers.CharField()
    flags = FlagSerializer(many=True)


@extend_schema(operation_id="reliability", parameters=[ReliabilityQuery], responses=ReliabilitySerializer)
@api_view(["GET"])
def reliability_detail(request: Request, slug: str) -> Response:
    """Return each annotator's reliability with its 95 % interval, estimated jointly with the completions' scores.

    A new report is made when the record of rankings has grown by 5 %. A report never changes.
    """
    project = members.manager_of(request.user, slug).project
    as_of = strict.validated_query(ReliabilityQuery, request)["as_of"]
    report = reliability.latest(project) if as_of is None else reliability.stored_report_at(project, as_of)
    if report is None:
        return Response({"as_of": None, "estimated_at": None, "spread": None, "annotators": []})
    annotators = report.annotators.select_related("annotator").order_by("annotator__username")
    body = {"until": report.until, "created_at": report.created_at, "spread": report.spread, "annotators": annotators}
    return Response(ReliabilitySerializer(body).data)


@extend_schema(operation_id="trust", responses=VerdictSerializer)
@api_view(["GET"])
def trust_detail(request: Request, slug: str) -> Response:
    """Return a sentence on whether the labels can be trusted, and the annotators to look at, with the reasons."""
    verdict = trust.verdict(members.manager_of(request.user, slug).project)
    body = {
        "can_be_trusted": verdict.can_be_trusted,
        "sentence": verdict.sentence,
        "flags": verdict.flags,
        "as_of": verdict.as_of,
        "is_current": verdict.is_current,
    }
    return Response(VerdictSerializer(body).data)
