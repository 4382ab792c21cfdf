"""Routing rules: which prompts go to which members."""

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from feedback.actions import members, routing
from feedback.api import strict
from feedback.api.views import api_view
from feedback.models import MAX_NAMES, Project
from feedback.reports import routing as reports


def _names(max_length: int) -> serializers.ListField:
    child = serializers.CharField(max_length=max_length)
    return serializers.ListField(child=child, allow_empty=False, max_length=MAX_NAMES)


class RuleSerializer(strict.Serializer):
    """A rule: prompts with one of `tags` go only to members of one of `groups`."""

    tags = _names(100)
    groups = _names(50)


class RoutingRequest(strict.Serializer):
    """All rules of the project, in place of those that it has."""

    rules = RuleSerializer(many=True)


class WaitingSerializer(strict.Serializer):
    """Comparisons that wait, by the tags of their prompt that rules name. `problem` is "" if enough people may rank."""

    tags = serializers.ListField(child=serializers.CharField())
    comparisons = serializers.IntegerField()
    wanted_rankings = serializers.IntegerField(help_text="The most that one of the comparisons wants.")
    members = serializers.IntegerField(help_text="Active members who may rank them.")
    problem = serializers.CharField(source="sentence", allow_blank=True)


class RoutingSerializer(strict.Serializer):
    rules = RuleSerializer(many=True)
    waiting = WaitingSerializer(many=True)
    ranked_before = serializers.IntegerField(
        help_text="Live rankings by members whom the rules keep from these prompts now; made before the rules."
    )
    unknown_tags = serializers.ListField(child=serializers.CharField(), help_text="Named by rules, and by no prompt.")
    empty_groups = serializers.ListField(child=serializers.CharField(), help_text="Named by rules, without a member.")


@extend_schema(methods=["GET"], operation_id="routing_get", responses=RoutingSerializer)
@extend_schema(methods=["PATCH"], operation_id="routing_replace", request=RoutingRequest, responses=RoutingSerializer)
@api_view(["GET", "PATCH"])
def routing_detail(request: Request, slug: str) -> Response:
    """Return the routing rules with what they leave without people, or replace the rules. For managers.

    A prompt's tags are the list `tags` of its metadata. A prompt that several rules name goes to the members who meet
    all of them. What members hold and may not rank any more is given back at once.
    """
    project = members.manager_of(request.user, slug).project
    if request.method == "PATCH":
        rules = strict.validated(RoutingRequest(data=request.data))["rules"]
        routing.save_rules(project, [(rule["tags"], rule["groups"]) for rule in rules])
        project.refresh_from_db()
    return Response(_body(project))


def _body(project: Project) -> dict[str, Any]:
    return RoutingSerializer(reports.overview(project)).data
