"""API of retired checkpoints, for managers: retire, bring back, delete the files."""

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from feedback.actions import members
from feedback.api import strict
from feedback.api.views import api_view
from training import checkpoints, reports
from training.api.checkpoints import CheckpointSerializer
from training.models import Checkpoint


class DeletionQuery(strict.Serializer):
    """The confirmation of a deletion."""

    confirmed = serializers.BooleanField(
        required=False, default=False, help_text="True: delete. Otherwise the answer (409) has the size of the files."
    )


@extend_schema(operation_id="checkpoints_retire", request=None, responses=CheckpointSerializer)
@api_view(["POST"])
def retire(request: Request, slug: str, checkpoint_id: int) -> Response:
    """Retire a checkpoint: it is neither served, nor tried, nor the base of a round, until it is brought back."""
    checkpoint = checkpoints.retire(_checkpoint(request, slug, checkpoint_id), request.user)
    return Response(CheckpointSerializer(checkpoint).data)


@extend_schema(operation_id="checkpoints_restore", request=None, responses=CheckpointSerializer)
@api_view(["POST"])
def restore(request: Request, slug: str, checkpoint_id: int) -> Response:
    """Bring a retired checkpoint back, whose files exist."""
    checkpoint = checkpoints.restore(_checkpoint(request, slug, checkpoint_id))
    return Response(CheckpointSerializer(checkpoint).data)


@extend_schema(
    operation_id="checkpoints_delete_files", parameters=[DeletionQuery], responses={200: CheckpointSerializer}
)
@api_view(["DELETE"])
def files(request: Request, slug: str, checkpoint_id: int) -> Response:
    """Delete the files of a retired checkpoint of a round, which cannot be undone. A worker removes them."""
    checkpoint = _checkpoint(request, slug, checkpoint_id)
    query = strict.validated_query(DeletionQuery, request)
    return Response(CheckpointSerializer(checkpoints.delete_files(checkpoint, request.user, **query)).data)


def _checkpoint(request: Request, slug: str, checkpoint_id: int) -> Checkpoint:
    """Return the project's checkpoint if the user manages it. Raise as the pages do otherwise."""
    return reports.checkpoint_of(members.manager_of(request.user, slug).project, checkpoint_id)
