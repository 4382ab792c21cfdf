"""How far annotators can be trusted, for managers."""

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from feedback.actions import members
from feedback.api import strict
from feedback.api.agreement import AsOfShown
from feedback.api.views import api_view
from feedback.models import Reliability
from feedback.quality import reliability
from feedback.reports import trust

LARGEST = 2**63 - 1


class AsOfQuery(strict.Serializer):
    as_of = serializers.IntegerField(
        default=None,
        allow_null=True,
        min_value=0,
        max_value=LARGEST,
        help_text="That moment; the latest unless given.",
    )


class ReliabilityOfAnnotator(strict.ModelSerializer):
    username = serializers.CharField(source="annotator.username")
    reliability = serializers.FloatField(source="value", help_text="1: judges well; ½: at random; 0: the opposite.")
    weight = serializers.FloatField(help_text="What a ranking of theirs counts: 2 · reliability − 1, at least 0.")
    is_adversarial = serializers.BooleanField(help_text="The whole interval lies below ½.")
    shared = serializers.IntegerField(help_text="Comparisons of theirs that others ranked too.")
    gold = serializers.IntegerField(help_text="Gold comparisons that they ranked.")

    class Meta:
        model = Reliability
        fields = ("username", "reliability", "low", "high", "weight", "is_adversarial", "shared", "gold")


class ReliabilitySerializer(strict.Serializer):
    as_of = serializers.IntegerField(
        source="until", allow_null=True, help_text="The last ranking, by sequence; null: nothing is estimated yet."
    )
    estimated_at = serializers.DateTimeField(source="created_at", allow_null=True)
    spread = serializers.FloatField(allow_null=True, help_text="How far apart two completions are, in log-odds.")
    annotators = ReliabilityOfAnnotator(many=True)


class FlagSerializer(strict.Serializer):
    username = serializers.CharField()
    sign = serializers.CharField(help_text="random_clicker, gold_failure, position_bias, speed or opposite.")
    sentence = serializers.CharField()


class VerdictSerializer(AsOfShown):
    can_be_trusted = serializers.BooleanField(allow_null=True, help_text="Null: nobody can say, or with care.")
    sentence = serializers.CharField()
    flags = FlagSerializer(many=True)


@extend_schema(operation_id="reliability", parameters=[AsOfQuery], responses=ReliabilitySerializer)
@api_view(["GET"])
def reliability_detail(request: Request, slug: str) -> Response:
    """Each annotator's reliability with its 95 % interval, estimated jointly with the completions that they ranked.

    It is estimated anew when the record has grown by a twentieth; a report never changes.
    """
    project = members.manager_of(request.user, slug).project
    wanted = AsOfQuery(data=request.query_params.dict())
    wanted.is_valid(raise_exception=True)
    moment = wanted.validated_data["as_of"]
    report = reliability.latest(project) if moment is None else reliability.as_of(project, moment)
    if report is None:
        return Response({"as_of": None, "estimated_at": None, "spread": None, "annotators": []})
    annotators = report.annotators.select_related("annotator").order_by("annotator__username")
    shown = {"until": report.until, "created_at": report.created_at, "spread": report.spread, "annotators": annotators}
    return Response(ReliabilitySerializer(shown).data)


@extend_schema(operation_id="trust", responses=VerdictSerializer)
@api_view(["GET"])
def trust_detail(request: Request, slug: str) -> Response:
    """Whether the labels can be trusted, in a sentence; and every sign that somebody's work should be looked at."""
    project = members.manager_of(request.user, slug).project
    found = trust.verdict(project)
    shown = {
        "can_be_trusted": found.can_be_trusted,
        "sentence": found.sentence,
        "flags": [each._asdict() for each in found.flags],
        "as_of": found.as_of,
        "is_current": found.is_current,
    }
    return Response(VerdictSerializer(shown).data)
