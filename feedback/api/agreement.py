"""Agreement between annotators, for managers."""

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
    """A number with its 95 % interval. It is null if it is undefined; `sentence` then states the reason."""

    value = serializers.FloatField(allow_null=True)
    low = serializers.FloatField(allow_null=True)
    high = serializers.FloatField(allow_null=True)
    pairs = serializers.IntegerField()
    comparisons = serializers.IntegerField()
    sentence = serializers.CharField()


class CheckResultSerializer(strict.Serializer):
    """Result of one check for careless work. A flag is a reason to look at the work, not a proof."""

    value = serializers.FloatField(allow_null=True)
    rankings = serializers.IntegerField()
    is_flagged = serializers.BooleanField()
    sentence = serializers.CharField()
    after = serializers.IntegerField(
        allow_null=True, help_text="Number of rankings after which the check flagged the annotator; null: it did not."
    )


class AgreementEstimatesSerializer(strict.Serializer):
    pairwise = EstimateSerializer(help_text="Share of pairs on which two annotators prefer the same, without ties.")
    alpha = EstimateSerializer(help_text="Krippendorff's alpha (ordinal): 1 is full agreement, 0 is chance.")


class AnnotatorAgreementSerializer(AgreementEstimatesSerializer):
    """Agreement of one annotator with all others, and the checks for careless work."""

    username = serializers.CharField()
    gold = EstimateSerializer(allow_null=True, help_text="Agreement with gold; null: no gold ranked yet.")
    random_clicker = CheckResultSerializer(help_text="Sequential test of the agreement with gold or others.")
    gold_failure = CheckResultSerializer(help_text="Sequential test of the agreement with gold alone.")
    position_bias = CheckResultSerializer(help_text="How often the completion that is displayed first wins.")
    speed = CheckResultSerializer(help_text="Median time per ranking, in seconds.")


class PairAgreementSerializer(AgreementEstimatesSerializer):
    usernames = serializers.ListField(child=serializers.CharField(), min_length=2, max_length=2)


class WeekAgreementSerializer(AgreementEstimatesSerializer):
    monday = serializers.DateField()


class AsOfSerializer(strict.Serializer):
    """Time of the figures of quality. In a project of more than 10,000 rankings they may be minutes old."""

    as_of = serializers.DateTimeField(
        help_text="When agreement, gold and checks were computed; the current time if nothing has changed since."
    )
    is_current = serializers.BooleanField(help_text="Whether no ranking or decision was added since `as_of`.")


class AgreementSerializer(AsOfSerializer, AgreementEstimatesSerializer):
    by_annotator = AnnotatorAgreementSerializer(many=True)
    by_two = PairAgreementSerializer(many=True)
    by_week = WeekAgreementSerializer(many=True)


@extend_schema(operation_id="agreement", responses=AgreementSerializer)
@api_view(["GET"])
def agreement_detail(request: Request, slug: str) -> Response:
    """Return the agreement of the project, by annotator (with checks for careless work), by pair and by week."""
    project = members.manager_of(request.user, slug).project
    quality = quality_snapshot.get_quality(project, by_two=True)
    report = quality.agreement
    usernames = dict(User.objects.filter(pk__in=quality.checks).values_list("pk", "username"))
    undefined = agreement.AgreementMeasures(agreement.share([]), agreement.share([]))
    by_annotator = [
        {
            "username": usernames[pk],
            **vars(report.by_annotator.get(pk, undefined)),
            "gold": quality.gold.get(pk),
            **vars(checks),
        }
        for pk, checks in quality.checks.items()
    ]
    by_two = [
        {"usernames": [usernames[first], usernames[second]], **vars(estimates)}
        for (first, second), estimates in report.by_two.items()
    ]
    by_week = [{"monday": monday, **vars(estimates)} for monday, estimates in report.by_week.items()]
    body = {
        **vars(report.overall),
        "as_of": quality.as_of,
        "is_current": quality.is_current,
        "by_annotator": by_annotator,
        "by_two": by_two,
        "by_week": by_week,
    }
    return Response(AgreementSerializer(body).data)
