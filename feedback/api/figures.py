"""What people have done, how well, and how it goes: everybody's for managers, one's own for each member."""

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from feedback.actions import members
from feedback.api import strict
from feedback.api.agreement import AsOfShown, EstimateSerializer, SignSerializer
from feedback.api.views import api_view
from feedback.reports import statistics


class DoneSerializer(strict.Serializer):
    """How much one person has ranked; adjudications are not counted."""

    today = serializers.IntegerField()
    week = serializers.IntegerField(help_text="In the last seven days.")
    total = serializers.IntegerField()
    taken_out = serializers.IntegerField(help_text="Of the total: returned or discarded by a reviewer.")
    seconds = serializers.FloatField(allow_null=True, help_text="The median.")
    last_at = serializers.DateTimeField(allow_null=True)


class ReliabilityEstimateSerializer(strict.Serializer):
    """1 judges well, ½ is chance, 0 says the opposite; with the 95 % interval."""

    value = serializers.FloatField()
    low = serializers.FloatField()
    high = serializers.FloatField()


class PersonFiguresSerializer(AsOfShown):
    """One person's figures."""

    user_id = serializers.IntegerField(source="user.pk")
    username = serializers.CharField(source="user.username")
    is_member = serializers.SerializerMethodField()
    done = DoneSerializer()
    days = serializers.ListField(child=serializers.IntegerField(), help_text="Rankings a day, the last one today.")
    skips = serializers.IntegerField()
    agreement = EstimateSerializer(allow_null=True, help_text="With all others.")
    gold = EstimateSerializer(allow_null=True)
    reliability = ReliabilityEstimateSerializer(
        allow_null=True, help_text="As of the last report; null: there is none yet."
    )
    signs = SignSerializer(many=True, help_text="Of carelessness, those that are beyond chance.")

    def get_is_member(self, person: statistics.Person) -> bool:
        return person.role is not None


class OwnFiguresSerializer(strict.Serializer):
    """The caller's figures. Quality counts full batches of 50 rankings from the day after; null before or if hidden."""

    done = DoneSerializer()
    days = serializers.ListField(child=serializers.IntegerField(), help_text="Rankings a day, the last one today.")
    skips = serializers.IntegerField()
    returned = serializers.IntegerField(help_text="Comparisons that reviewers ask one to look at again.")
    agreement = EstimateSerializer(allow_null=True)
    gold = EstimateSerializer(allow_null=True)


@extend_schema(operation_id="figures", responses=PersonFiguresSerializer(many=True))
@api_view(["GET"])
def figures_list(request: Request, slug: str) -> Response:
    """Everybody's figures, by user name. For managers."""
    project = members.manager_of(request.user, slug).project
    return Response(PersonFiguresSerializer(statistics.of_everybody(project), many=True).data)


@extend_schema(operation_id="figures_own", responses=OwnFiguresSerializer)
@api_view(["GET"])
def figures_own(request: Request, slug: str) -> Response:
    """One's own figures."""
    return Response(OwnFiguresSerializer(statistics.own(members.membership_of(request.user, slug))).data)
