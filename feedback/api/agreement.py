"""How far people agree, for managers."""

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from feedback.actions import members
from feedback.api import strict
from feedback.api.views import api_view
from feedback.models import User
from feedback.quality import agreement
from feedback.reports import quality_snapshot


class EstimateSerializer(strict.Serializer):
    """A number with its 95 % interval; null where it is undefined, and the sentence says why."""

    value = serializers.FloatField(allow_null=True)
    low = serializers.FloatField(allow_null=True)
    high = serializers.FloatField(allow_null=True)
    pairs = serializers.IntegerField()
    comparisons = serializers.IntegerField()
    sentence = serializers.CharField()


class SignSerializer(strict.Serializer):
    """One way in which careless work shows; a flag says whose work to look at, and proves nothing."""

    value = serializers.FloatField(allow_null=True)
    rankings = serializers.IntegerField()
    is_flagged = serializers.BooleanField()
    sentence = serializers.CharField()
    after = serializers.IntegerField(allow_null=True, help_text="Answers until it was flagged; null: it is not.")


class AgreedSerializer(strict.Serializer):
    pairwise = EstimateSerializer(help_text="How often two people prefer the same completion, ties aside.")
    alpha = EstimateSerializer(help_text="Krippendorff's alpha, ordinal: 1 is agreement, 0 is chance.")


class OfAnnotator(AgreedSerializer):
    """With all others."""

    username = serializers.CharField()
    gold = EstimateSerializer(allow_null=True, help_text="With gold; null: nothing of it ranked yet.")
    random_clicker = SignSerializer(help_text="Agreement with gold or others, tested in the order of time.")
    gold_failure = SignSerializer(help_text="Agreement with gold alone, tested in the order of time.")
    position_bias = SignSerializer(help_text="How often what is shown first wins.")
    speed = SignSerializer(help_text="The median time, in seconds.")


class OfTwo(AgreedSerializer):
    usernames = serializers.ListField(child=serializers.CharField(), min_length=2, max_length=2)


class OfWeek(AgreedSerializer):
    monday = serializers.DateField()


class AsOfShown(strict.Serializer):
    """Of a project of more than 10,000 rankings, agreement, gold and signs may be minutes old: then they say so."""

    as_of = serializers.DateTimeField(help_text="When agreement, gold and signs were counted; now, if nothing is new.")
    is_current = serializers.BooleanField(help_text="Whether nothing was said or decided since.")


class AgreementSerializer(AsOfShown, AgreedSerializer):
    by_annotator = OfAnnotator(many=True)
    by_two = OfTwo(many=True)
    by_week = OfWeek(many=True)


@extend_schema(operation_id="agreement", responses=AgreementSerializer)
@api_view(["GET"])
def agreement_detail(request: Request, slug: str) -> Response:
    """How far people agree: altogether, of each (with signs of careless work), of each two, and by week."""
    project = members.manager_of(request.user, slug).project
    quality = quality_snapshot.of(project, by_two=True)
    measured, rates, signs = quality.agreement, quality.gold, quality.signs
    names = dict(User.objects.filter(pk__in=signs).values_list("pk", "username"))
    nothing = agreement.Agreed(agreement.share([]), agreement.share([]))
    shown: dict[str, Any] = {
        **vars(measured.overall),
        "as_of": quality.as_of,
        "is_current": quality.is_current,
        "by_annotator": [
            {
                "username": names[pk],
                **vars(measured.by_annotator.get(pk, nothing)),
                "gold": rates.get(pk),
                **vars(own),
            }
            for pk, own in signs.items()
        ],
        "by_two": [
            {"usernames": [names[one], names[other]], **vars(each)} for (one, other), each in measured.by_two.items()
        ],
        "by_week": [{"monday": monday, **vars(each)} for monday, each in measured.by_week.items()],
    }
    return Response(AgreementSerializer(shown).data)
