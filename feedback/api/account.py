"""The account of the current user: everything that is stored about them, and its erasure."""

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from feedback.actions import erasure
from feedback.api import strict
from feedback.api.views import api_view
from feedback.reports.own_data import own_data


class ErasureRequest(strict.Serializer):
    password = serializers.CharField(max_length=4096, trim_whitespace=False, style={"input_type": "password"})


@extend_schema(operation_id="account_erase", request=ErasureRequest, responses={204: None})
@api_view(["POST"])
def account_erase(request: Request) -> Response:
    """Erase the current user: name, mail, tokens, and all rankings, which exports retract. It cannot be undone.

    Models keep what they have learned already.
    """
    erasure.erase(request.user, strict.validated(ErasureRequest(data=request.data))["password"])
    return Response(status=204)


@extend_schema(operation_id="account_data", responses=OpenApiTypes.OBJECT)
@api_view(["GET"])
def account_data(request: Request) -> Response:
    """Return everything that is stored about the current user, but for what would show which comparisons are tests."""
    return Response(own_data(request.user))
