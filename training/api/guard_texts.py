"""Guard texts of a project by API."""

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from feedback.actions import members
from feedback.api import strict
from feedback.api.views import api_view
from training import guard_texts
from training.models import GuardText


class GuardTextsRequest(strict.Serializer):
    """Texts to add; those that are there already are counted and left out."""

    texts = serializers.ListField(
        child=serializers.CharField(max_length=GuardText.MAX_LENGTH, trim_whitespace=False), allow_empty=False
    )


class GuardTextsSerializer(strict.Serializer):
    """The guard texts of a project."""

    texts = serializers.ListField(child=serializers.CharField())


class AddedSerializer(strict.Serializer):
    """Numbers of texts that were new, and that were there already."""

    new = serializers.IntegerField()
    known = serializers.IntegerField()


class RemovedSerializer(strict.Serializer):
    """Number of texts that were removed."""

    removed = serializers.IntegerField()


@extend_schema(methods=["GET"], operation_id="guard_texts_list", responses=GuardTextsSerializer)
@extend_schema(
    methods=["POST"], operation_id="guard_texts_add", request=GuardTextsRequest, responses={201: AddedSerializer}
)
@extend_schema(methods=["DELETE"], operation_id="guard_texts_remove", responses={200: RemovedSerializer})
@api_view(["GET", "POST", "DELETE"])
def texts(request: Request, slug: str) -> Response:
    """List the texts that rounds measure the likelihood of, add some, or remove them all."""
    membership = members.manager_of(request.user, slug)
    if request.method == "GET":
        return Response({"texts": list(membership.project.guard_texts.order_by("pk").values_list("text", flat=True))})
    if request.method == "DELETE":
        return Response({"removed": guard_texts.remove_all(membership.project)})
    values = strict.validated(GuardTextsRequest(data=request.data))
    return Response(guard_texts.add(membership.project, values["texts"], membership.user)._asdict(), status=201)
