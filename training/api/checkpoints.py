"""API of checkpoints, for managers: import, check, promote and roll back, as on the console."""

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from feedback.actions import members
from feedback.api import strict
from feedback.api.pages import ListQuery, as_page
from feedback.api.views import api_view
from training import checkpoints, guards, reports
from training.models import Checkpoint, Promotion


class CheckpointSerializer(strict.ModelSerializer):
    name = serializers.CharField(source="source.name", read_only=True)
    parent = serializers.CharField(source="parent.source.name", read_only=True, default=None)
    children = serializers.SerializerMethodField(help_text="Checkpoints of the rounds that started from it.")
    round = serializers.IntegerField(source="round.number", read_only=True, default=None)
    evaluation = serializers.IntegerField(
        read_only=True, default=None, help_text="Number of the newest round that evaluated it; null: none did."
    )
    fallen_guards = serializers.SerializerMethodField(help_text="A sentence for each guard that fell in its round.")
    retired_by = serializers.CharField(source="retired_by.username", read_only=True, default=None)
    files_deleted_by = serializers.CharField(source="files_deleted_by.username", read_only=True, default=None)
    file_sizes = serializers.DictField(
        child=serializers.IntegerField(),
        read_only=True,
        allow_null=True,
        help_text="Bytes by part: model, reward_model, critic, other; shared: has hard links elsewhere. Null: not "
        "measured yet. Of deleted files: what was deleted.",
    )

    class Meta:
        model = Checkpoint
        fields = (
            "id",
            "name",
            "kind",
            "path",
            "reward_model_path",
            "parent",
            "children",
            "round",
            "evaluation",
            "fallen_guards",
            "is_served",
            "verdict",
            "verdict_reason",
            "retired_at",
            "retired_by",
            "file_sizes",
            "files_deleted_at",
            "files_deleted_by",
            "created_at",
        )

    def get_children(self, checkpoint: Checkpoint) -> list[str]:
        return [str(child) for child in checkpoint.children.all()]

    def get_fallen_guards(self, checkpoint: Checkpoint) -> list[str]:
        return [fall.sentence for fall in guards.fallen(checkpoint)]


class PromotionRequest(strict.Serializer):
    """A promotion, which is confirmed if a guard fell in the checkpoint's round."""

    confirmed = serializers.BooleanField(
        required=False, default=False, help_text="True: also if a guard fell, which is otherwise refused (409)."
    )


class CheckpointRequest(strict.Serializer):
    """A model to import, by its path on this machine."""

    path = serializers.CharField(
        max_length=1000, help_text="Hugging Face folder, or the hub id of a model that was downloaded to this machine."
    )
    label = serializers.CharField(max_length=200, help_text="Name of the checkpoint, and source of its completions.")
    serve = serializers.BooleanField(required=False, default=False, help_text="Serve it if its check finds it exact.")


class PromotionSerializer(strict.ModelSerializer):
    checkpoint = serializers.CharField(source="checkpoint.source.name", read_only=True)
    replaced = serializers.CharField(source="replaced.source.name", read_only=True, default=None)
    trial = serializers.IntegerField(
        source="trial.number", read_only=True, default=None, help_text="Number of the trial that it follows."
    )

    class Meta:
        model = Promotion
        fields = ("checkpoint", "replaced", "is_roll_back", "trial", "created_at")


@extend_schema(
    methods=["GET"], operation_id="checkpoints_list", parameters=[ListQuery], responses=CheckpointSerializer(many=True)
)
@extend_schema(
    methods=["POST"],
    operation_id="checkpoints_import",
    request=CheckpointRequest,
    responses={201: CheckpointSerializer},
)
@api_view(["GET", "POST"])
def checkpoint_list(request: Request, slug: str) -> Response:
    """List the project's checkpoints, newest first, or import a model, which a worker checks later.

    Only administrators of the site may import: a person who may name paths can read every model of the machine.
    """
    project = members.manager_of(request.user, slug).project
    if request.method == "GET":
        return as_page(request, reports.checkpoints_of(project), CheckpointSerializer, key="pk")
    checkpoints.check_may_import(request.user)
    values = strict.validated(CheckpointRequest(data=request.data))
    imported = checkpoints.import_checkpoint(
        project, values["path"], values["label"], serve=values["serve"], actor=request.user, may_fetch=False
    )
    return Response(CheckpointSerializer(imported).data, status=201)


@extend_schema(operation_id="checkpoints_get", responses=CheckpointSerializer)
@api_view(["GET"])
def checkpoint_detail(request: Request, slug: str, checkpoint_id: int) -> Response:
    """Return a checkpoint with the result of its check: poll this after an import."""
    return Response(
        CheckpointSerializer(reports.checkpoint_of(members.manager_of(request.user, slug).project, checkpoint_id)).data
    )


@extend_schema(operation_id="checkpoints_check", request=None, responses=CheckpointSerializer)
@api_view(["POST"])
def checkpoint_check(request: Request, slug: str, checkpoint_id: int) -> Response:
    """Check a refused checkpoint again."""
    checkpoint = reports.checkpoint_of(members.manager_of(request.user, slug).project, checkpoint_id)
    return Response(CheckpointSerializer(checkpoints.check_again(checkpoint)).data)


@extend_schema(operation_id="checkpoints_promote", request=PromotionRequest, responses=PromotionSerializer)
@api_view(["POST"])
def checkpoint_promote(request: Request, slug: str, checkpoint_id: int) -> Response:
    """Serve this checkpoint: the next round starts from it, and its comparisons are ranked first."""
    checkpoint = reports.checkpoint_of(members.manager_of(request.user, slug).project, checkpoint_id)
    values = strict.validated(PromotionRequest(data=request.data))
    return Response(PromotionSerializer(checkpoints.promote(checkpoint, request.user, **values)).data)


@extend_schema(operation_id="checkpoints_roll_back", request=None, responses=PromotionSerializer)
@api_view(["POST"])
def checkpoint_roll_back(request: Request, slug: str) -> Response:
    """Serve the checkpoint that was served before the last promotion."""
    return Response(
        PromotionSerializer(checkpoints.roll_back(members.manager_of(request.user, slug).project, request.user)).data
    )
