"""Endpoints of a project by API, for managers. A key is written, never read."""

from typing import Any

from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from feedback.actions import members
from feedback.api import strict
from feedback.api.views import api_view
from training.endpoints import records
from training.models import Endpoint


class EndpointSerializer(strict.ModelSerializer):
    """An OpenAI-compatible endpoint whose model writes completions."""

    source = serializers.CharField(source="source.name", read_only=True, help_text="Its name in the setting sources.")
    key = serializers.CharField(
        write_only=True, required=False, allow_blank=True, max_length=1000, help_text="Stored encrypted; empty: none."
    )
    has_key = serializers.BooleanField(source="encrypted_key", read_only=True, help_text="Whether a key is stored.")
    cost = serializers.SerializerMethodField(help_text="Of all its tokens at the present prices; null: no prices.")

    class Meta:
        model = Endpoint
        fields = [
            *("id", "name", "url", "model", "key", "has_key", "source", "concurrency", "timeout_seconds", "retries"),
            *("prompt_price", "completion_price", "requests", "prompt_tokens", "completion_tokens", "cost"),
            "created_at",
        ]
        read_only_fields = ("requests", "prompt_tokens", "completion_tokens", "created_at")

    @extend_schema_field(serializers.FloatField(allow_null=True))
    def get_cost(self, endpoint: Endpoint) -> float | None:
        return records.cost_so_far(endpoint)


class ModelsSerializer(strict.Serializer):
    """The models that an endpoint lists."""

    models = serializers.ListField(child=serializers.CharField())


class CallSerializer(strict.Serializer):
    """Result of one short request to an endpoint."""

    text = serializers.CharField()
    error = serializers.CharField(help_text="Why there is no completion; empty: there is one.")
    model = serializers.CharField(help_text="As the endpoint names it.")
    finish_reason = serializers.CharField()
    seconds = serializers.FloatField()
    prompt_tokens = serializers.IntegerField(allow_null=True)
    completion_tokens = serializers.IntegerField(allow_null=True)
    cost = serializers.FloatField(allow_null=True)


@extend_schema(methods=["GET"], operation_id="endpoints_list", responses=EndpointSerializer(many=True))
@extend_schema(
    methods=["POST"], operation_id="endpoints_create", request=EndpointSerializer, responses={201: EndpointSerializer}
)
@api_view(["GET", "POST"])
def endpoint_list(request: Request, slug: str) -> Response:
    """List the endpoints of the project, or add one."""
    membership = members.manager_of(request.user, slug)
    if request.method == "GET":
        return Response(EndpointSerializer(records.endpoints_of(membership.project), many=True).data)
    values = strict.validated(EndpointSerializer(data=request.data))
    return Response(EndpointSerializer(records.create(membership.project, values, membership.user)).data, status=201)


@extend_schema(methods=["GET"], operation_id="endpoints_read", responses=EndpointSerializer)
@extend_schema(
    methods=["PATCH"], operation_id="endpoints_change", request=EndpointSerializer, responses=EndpointSerializer
)
@extend_schema(methods=["DELETE"], operation_id="endpoints_remove", responses={204: None})
@api_view(["GET", "PATCH", "DELETE"])
def endpoint_detail(request: Request, slug: str, endpoint_id: int) -> Response:
    """Read, change or remove an endpoint. After a removal its completions stay."""
    endpoint = _endpoint(request, slug, endpoint_id)
    if request.method == "DELETE":
        records.remove(endpoint)
        return Response(status=204)
    if request.method == "PATCH":
        values: dict[str, Any] = strict.validated(EndpointSerializer(endpoint, data=request.data, partial=True))
        records.change(endpoint, values)
    return Response(EndpointSerializer(endpoint).data)


@extend_schema(operation_id="endpoints_models", responses=ModelsSerializer)
@api_view(["GET"])
def endpoint_models(request: Request, slug: str, endpoint_id: int) -> Response:
    """Return the models that the endpoint lists."""
    endpoint = _endpoint(request, slug, endpoint_id)
    return Response({"models": records.models_at(endpoint.url, records.key_of(endpoint))})


@extend_schema(operation_id="endpoints_call", request=None, responses=CallSerializer)
@api_view(["POST"])
def endpoint_call(request: Request, slug: str, endpoint_id: int) -> Response:
    """Send one short request to the endpoint, whose tokens count."""
    return Response(CallSerializer(records.call_once(_endpoint(request, slug, endpoint_id))).data)


def _endpoint(request: Request, slug: str, endpoint_id: int) -> Endpoint:
    return records.endpoint_of(members.manager_of(request.user, slug).project, endpoint_id)
