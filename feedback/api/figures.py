"""Figures of the annotators: of all members for managers, of oneself for every member."""

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from feedback.actions import members
from feedback.api import strict
from feedback.api.agreement import AsOfSerializer, CheckResultSerializer, EstimateSerializer
from feedback.api.views import api_view
from feedback.reports import statistics

DAYS_HELP = "Rankings per day; the last one is today."


class DoneSerializer(strict.Serializer):
    """Number of rankings by one person, without adjudications."""

    today = serializers.IntegerField()
    week = serializers.IntegerField(help_text="In the last seven days.")
    total = serializers.IntegerField()
    taken_out = serializers.IntegerField(help_text="Rankings of the total that a reviewer returned or discarded.")
    seconds = serializers.FloatField(allow_null=True, help_text="Median time per ranking.")
    last_at = serializers.DateTimeField(allow_null=True)


class ReliabilityEstimateSerializer(strict.Serializer):
    """Reliability with its 95 % interval: 1 orders pairs as the consensus does, ½ at random, 0 the opposite."""

    value = serializers.FloatField()
    low = serializers.FloatField()
    high = serializers.FloatField()


class PersonFiguresSerializer(AsOfSerializer):
    """Figures of one person."""

    user_id = serializers.IntegerField(source="user.pk")
    username = serializers.CharField(source="user.username")
    is_member = serializers.SerializerMethodField()
    done = DoneSerializer()
    days = serializers.ListField(child=serializers.IntegerField(), help_text=DAYS_HELP)
    skips = serializers.IntegerField()
    agreement = EstimateSerializer(allow_null=True, help_text="Agreement with all others.")
    gold = EstimateSerializer(allow_null=True, help_text="Agreement with gold.")
    reliability = ReliabilityEstimateSerializer(
        allow_null=True, help_text="From the last report; null: there is no report yet."
    )
    signs = CheckResultSerializer(
        source="flagged_checks", many=True, help_text="Checks for careless work that flag this person."
    )

    def get_is_member(self, person: statistics.PersonFigures) -> bool:
        return person.role is not None


class OwnFiguresSerializer(strict.Serializer):
    """Figures of the current user.

    Agreement and gold cover full batches of 50 rankings up to the last midnight. They are null before the first batch,
    and where the project does not show them to annotators.
    """

    done = DoneSerializer()
    days = serializers.ListField(child=serializers.IntegerField(), help_text=DAYS_HELP)
    skips = serializers.IntegerField()
    demonstrations = serializers.IntegerField(help_text="Answers to be imitated that the user wrote.")
    returned = serializers.IntegerField(help_text="Comparisons that reviewers returned to be ranked again.")
    agreement = EstimateSerializer(allow_null=True)
    gold = EstimateSerializer(allow_null=True)


@extend_schema(operation_id="figures", responses=PersonFiguresSerializer(many=True))
@api_view(["GET"])
def figures_list(request: Request, slug: str) -> Response:
    """List the figures of all members and of all who have ranked, by username. For managers."""
    project = members.manager_of(request.user, slug).project
    return Response(PersonFiguresSerializer(statistics.figures_of_everybody(project), many=True).data)


@extend_schema(operation_id="figures_own", responses=OwnFiguresSerializer)
@api_view(["GET"])
def figures_own(request: Request, slug: str) -> Response:
    """Return the figures of the current user."""
    return Response(OwnFiguresSerializer(statistics.own_figures(members.membership_of(request.user, slug))).data)
