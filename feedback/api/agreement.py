"""How far people agree, for managers."""

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.decorators import api_view
from rest_framework.request import Request
from rest_framework.response import Response

from feedback import agreement, gold, people
from feedback.models import User


class EstimateShown(serializers.Serializer):
    """A number with its 95 % interval; null where it is undefined, and the sentence says why."""

    value = serializers.FloatField(allow_null=True)
    low = serializers.FloatField(allow_null=True)
    high = serializers.FloatField(allow_null=True)
    pairs = serializers.IntegerField()
    comparisons = serializers.IntegerField()
    sentence = serializers.CharField()


class OfAnnotator(serializers.Serializer):
    username = serializers.CharField()
    pairwise = EstimateShown(help_text="With all others.")
    gold = EstimateShown(allow_null=True, help_text="With gold; null: nothing of it ranked yet.")


class OfTwo(serializers.Serializer):
    usernames = serializers.ListField(child=serializers.CharField(), min_length=2, max_length=2)
    pairwise = EstimateShown()


class OfWeek(serializers.Serializer):
    monday = serializers.DateField()
    pairwise = EstimateShown()


class AgreementShown(serializers.Serializer):
    pairwise = EstimateShown(help_text="How often two people prefer the same completion, ties aside.")
    alpha = EstimateShown(help_text="Krippendorff's alpha, ordinal: 1 is agreement, 0 is chance.")
    by_annotator = OfAnnotator(many=True)
    by_two = OfTwo(many=True)
    by_week = OfWeek(many=True)


@extend_schema(operation_id="agreement", responses=AgreementShown)
@api_view(["GET"])
def agreement_detail(request: Request, slug: str) -> Response:
    """How far people agree: altogether, each with the others, each two, and by week. For managers."""
    project = people.manager_of(request.user, slug).project
    measured, rates = agreement.measure(project), gold.pass_rates(project)
    everyone = sorted({*measured.by_annotator, *rates})
    names = dict(User.objects.filter(pk__in=everyone).values_list("pk", "username"))
    nothing = agreement.share([])
    shown: dict[str, Any] = {
        "pairwise": measured.pairwise,
        "alpha": measured.alpha,
        "by_annotator": [
            {"username": names[pk], "pairwise": measured.by_annotator.get(pk, nothing), "gold": rates.get(pk)}
            for pk in everyone
        ],
        "by_two": [
            {"usernames": [names[one], names[other]], "pairwise": each}
            for (one, other), each in measured.by_two.items()
        ],
        "by_week": [{"monday": monday, "pairwise": each} for monday, each in measured.by_week.items()],
    }
    return Response(AgreementShown(shown).data)
