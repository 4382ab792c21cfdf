"""Rounds and checkpoints over HTTP, for managers. What it does is what the console does, by the same functions."""

from typing import Any

from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from feedback.actions import members
from feedback.api import strict
from feedback.api.idempotency import idempotent
from feedback.api.views import api_view
from feedback.models import Project
from training import checkpoints, reports
from training.models import Checkpoint, LoopSettings, Promotion, Round
from training.rounds import lifecycle
from training.rounds.schedule import configure
from training.rounds.start import start_round, start_sampling


class RoundRequest(strict.Serializer):
    """What to start. Sections of settings: round, common, reward, ppo, sample.

    `python -m training.learner.ppo --help` (and reward, sample) lists a section's settings.
    """

    settings = serializers.DictField(child=serializers.DictField(), required=False, default=dict)
    learns = serializers.BooleanField(
        required=False, default=True, help_text="False: only write completions to be ranked."
    )
    checkpoint = serializers.IntegerField(
        required=False, allow_null=True, default=None, help_text="Whose completions, where nothing is learned."
    )


class ProgressSerializer(strict.Serializer):
    """How far the stage's program is."""

    step = serializers.IntegerField()
    total = serializers.IntegerField()
    percent = serializers.FloatField()
    seconds_left = serializers.FloatField(allow_null=True)


class MetricsLine(strict.Serializer):
    """One step's numbers. After a resume earlier steps come again, under new ids."""

    id = serializers.IntegerField()
    job = serializers.CharField()
    step = serializers.IntegerField()
    total = serializers.IntegerField(allow_null=True)
    time = serializers.FloatField(allow_null=True)
    values = serializers.DictField(child=serializers.FloatField())


class RoundSerializer(strict.ModelSerializer):
    """A round, as a list shows it."""

    base = serializers.CharField(source="base.source.name", read_only=True)
    checkpoint = serializers.SerializerMethodField()
    started_by = serializers.CharField(source="started_by.username", read_only=True, default=None)
    reward_terms = serializers.ListField(
        child=serializers.CharField(),
        read_only=True,
        help_text="Reward terms of the policy. Without reward_model the round does not learn from rankings.",
    )

    class Meta:
        model = Round
        fields: list[str] = [
            "number",
            "status",
            "stage",
            "learns",
            "base",
            "checkpoint",
            "ranking_count",
            "reward_terms",
            "results",
            "error",
            "started_by",
            "cancel_requested_at",
            "created_at",
            "started_at",
            "finished_at",
        ]

    def get_checkpoint(self, round_: Round) -> str | None:
        return str(round_.checkpoint) if round_.checkpoint else None


class RoundWatched(RoundSerializer):
    """A round in full, with the lines of metrics kept after `after`."""

    progress = serializers.SerializerMethodField()
    metrics = serializers.SerializerMethodField()

    class Meta(RoundSerializer.Meta):
        fields = [
            *RoundSerializer.Meta.fields,
            "settings",
            "attempt",
            "heartbeat_at",
            "log_tail",
            "progress",
            "metrics",
        ]

    @extend_schema_field(ProgressSerializer(allow_null=True))
    def get_progress(self, round_: Round) -> Any:
        step = reports.step_of(round_) if round_.status == Round.Status.RUNNING else None
        return ProgressSerializer(step).data if step else None

    @extend_schema_field(MetricsLine(many=True))
    def get_metrics(self, round_: Round) -> Any:
        return reports.metrics(round_, self.context.get("after", 0))


class LoopSerializer(strict.ModelSerializer):
    """How rounds run when nobody says otherwise."""

    round_every = serializers.IntegerField(
        allow_null=True, help_text="New rankings after which a round starts by itself; null: only by hand."
    )
    settings = serializers.DictField(child=serializers.DictField(), required=False)

    class Meta:
        model = LoopSettings
        fields = ("round_every", "settings")


class CheckpointSerializer(strict.ModelSerializer):
    name = serializers.CharField(source="source.name", read_only=True)
    parent = serializers.CharField(source="parent.source.name", read_only=True, default=None)
    round = serializers.IntegerField(source="round.number", read_only=True, default=None)

    class Meta:
        model = Checkpoint
        fields = (
            "id",
            "name",
            "kind",
            "path",
            "reward_model_path",
            "parent",
            "round",
            "is_served",
            "verdict",
            "verdict_reason",
            "created_at",
        )


class NewCheckpointSerializer(strict.Serializer):
    """A model to import, by its path on this machine."""

    path = serializers.CharField(max_length=1000, help_text="A Hugging Face folder, or the hub id of one fetched here.")
    label = serializers.CharField(max_length=200, help_text="What its completions are filed under.")
    serve = serializers.BooleanField(required=False, default=False, help_text="Serve it once its check finds it exact.")


class PromotionSerializer(strict.ModelSerializer):
    checkpoint = serializers.CharField(source="checkpoint.source.name", read_only=True)
    replaced = serializers.CharField(source="replaced.source.name", read_only=True, default=None)

    class Meta:
        model = Promotion
        fields = ("checkpoint", "replaced", "is_roll_back", "created_at")


class CursorQuery(strict.Serializer):
    after = serializers.IntegerField(required=False, default=0, min_value=0, max_value=2**63 - 1)


def _project(request: Request, slug: str) -> Project:
    """The manager's project; others learn what they would on the pages."""
    return members.manager_of(request.user, slug).project


@extend_schema(methods=["GET"], operation_id="rounds_list", responses=RoundSerializer(many=True))
@extend_schema(methods=["POST"], operation_id="rounds_start", request=RoundRequest, responses={201: RoundSerializer})
@api_view(["GET", "POST"])
@idempotent
def round_list(request: Request, slug: str) -> Response:
    """The project's rounds, newest first; or a new one, which waits for a worker."""
    project = _project(request, slug)
    if request.method == "GET":
        return Response(RoundSerializer(reports.rounds_of(project), many=True).data)
    form = RoundRequest(data=request.data)
    form.is_valid(raise_exception=True)
    started = _start(project, request, form.validated_data)
    return Response(RoundSerializer(started).data, status=201)


def _start(project: Project, request: Request, asked: dict[str, Any]) -> Round:
    if asked["learns"]:
        return start_round(project, request.user, asked["settings"])
    chosen = asked["checkpoint"]
    checkpoint = reports.checkpoint_of(project, chosen) if chosen is not None else None
    return start_sampling(project, request.user, asked["settings"], checkpoint)


@extend_schema(
    operation_id="rounds_watch",
    parameters=[OpenApiParameter("after", int, description="The last line of metrics that is known, by its id.")],
    responses=RoundWatched,
)
@api_view(["GET"])
def round_detail(request: Request, slug: str, number: int) -> Response:
    """A round's state, its progress, and its metrics after a line."""
    found = reports.round_of(_project(request, slug), number)
    cursor = CursorQuery(data=request.query_params)
    cursor.is_valid(raise_exception=True)
    return Response(RoundWatched(found, context=cursor.validated_data).data)


@extend_schema(operation_id="rounds_cancel", request=None, responses=RoundSerializer)
@api_view(["POST"])
def round_cancel(request: Request, slug: str, number: int) -> Response:
    """Cancel a waiting round at once, a running one within seconds. It can be resumed."""
    found = reports.round_of(_project(request, slug), number)
    return Response(RoundSerializer(lifecycle.request_cancel(found)).data)


@extend_schema(operation_id="rounds_resume", request=None, responses=RoundSerializer)
@api_view(["POST"])
def round_resume(request: Request, slug: str, number: int) -> Response:
    """Let a failed or cancelled round go on from where it stopped."""
    found = reports.round_of(_project(request, slug), number)
    return Response(RoundSerializer(lifecycle.resume(found)).data)


@extend_schema(methods=["GET"], operation_id="loop_settings", responses=LoopSerializer)
@extend_schema(methods=["PUT"], operation_id="loop_configure", request=LoopSerializer, responses=LoopSerializer)
@api_view(["GET", "PUT"])
def loop_detail(request: Request, slug: str) -> Response:
    """After how many new rankings a round starts by itself, and the settings that differ from ours."""
    project = _project(request, slug)
    if request.method == "GET":
        return Response(LoopSerializer(LoopSettings.objects.filter(project=project).first() or LoopSettings()).data)
    form = LoopSerializer(data=request.data)
    form.is_valid(raise_exception=True)
    return Response(LoopSerializer(configure(project, **form.validated_data)).data)


@extend_schema(methods=["GET"], operation_id="checkpoints_list", responses=CheckpointSerializer(many=True))
@extend_schema(
    methods=["POST"],
    operation_id="checkpoints_import",
    request=NewCheckpointSerializer,
    responses={201: CheckpointSerializer},
)
@api_view(["GET", "POST"])
@idempotent
def checkpoint_list(request: Request, slug: str) -> Response:
    """The project's checkpoints, newest first; or a model to import, which waits for its check by a worker.

    Only the site's administrators import, as on the pages: whoever may name paths sees all models of the machine.
    """
    project = _project(request, slug)
    if request.method == "GET":
        return Response(CheckpointSerializer(reports.checkpoints_of(project), many=True).data)
    checkpoints.check_may_import(request.user)
    form = NewCheckpointSerializer(data=request.data)
    form.is_valid(raise_exception=True)
    asked = form.validated_data
    imported = checkpoints.import_checkpoint(
        project, asked["path"], asked["label"], serve=asked["serve"], actor=request.user, may_fetch=False
    )
    return Response(CheckpointSerializer(imported).data, status=201)


@extend_schema(operation_id="checkpoints_get", responses=CheckpointSerializer)
@api_view(["GET"])
def checkpoint_detail(request: Request, slug: str, checkpoint_id: int) -> Response:
    """A checkpoint, with what its check found: poll this after an import."""
    return Response(CheckpointSerializer(reports.checkpoint_of(_project(request, slug), checkpoint_id)).data)


@extend_schema(operation_id="checkpoints_check", request=None, responses=CheckpointSerializer)
@api_view(["POST"])
def checkpoint_check(request: Request, slug: str, checkpoint_id: int) -> Response:
    """Check a refused checkpoint anew."""
    chosen = reports.checkpoint_of(_project(request, slug), checkpoint_id)
    return Response(CheckpointSerializer(checkpoints.check_again(chosen)).data)


@extend_schema(operation_id="checkpoints_promote", request=None, responses=PromotionSerializer)
@api_view(["POST"])
def checkpoint_promote(request: Request, slug: str, checkpoint_id: int) -> Response:
    """Serve this checkpoint: the next round starts from it, and its comparisons are ranked first."""
    chosen = reports.checkpoint_of(_project(request, slug), checkpoint_id)
    return Response(PromotionSerializer(checkpoints.promote(chosen, request.user)).data)


@extend_schema(operation_id="checkpoints_roll_back", request=None, responses=PromotionSerializer)
@api_view(["POST"])
def checkpoint_roll_back(request: Request, slug: str) -> Response:
    """Serve again what was served before the last promotion."""
    return Response(PromotionSerializer(checkpoints.roll_back(_project(request, slug), request.user)).data)
