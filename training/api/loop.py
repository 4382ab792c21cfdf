"""API of rounds and of the loop that starts them, for managers. It calls the same functions as the console."""

from typing import Any

from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from feedback.actions import members
from feedback.api import strict
from feedback.api.pages import ListQuery, as_page
from feedback.api.views import api_view
from feedback.models import Project
from training import guards, reports
from training.api.plans import RoundEstimateSerializer
from training.models import LoopSettings, Round
from training.rounds import estimates, lifecycle
from training.rounds import settings as round_settings
from training.rounds.schedule import configure
from training.rounds.settings import chosen_recipe
from training.rounds.start import project_recipe, start_round, start_sampling


class RoundRequest(strict.Serializer):
    """A round to start. Sections of settings: round, common, and one for every program that the recipe uses.

    The setting `recipe` of the section "round" chooses the recipe. `python -m training.learner.ppo --help` (and reward,
    sample, …) lists the settings of a section.
    """

    settings = serializers.DictField(child=serializers.DictField(), required=False, default=dict)
    learns = serializers.BooleanField(
        required=False, default=True, help_text="False: no training; the checkpoint only writes completions to rank."
    )
    checkpoint = serializers.IntegerField(
        required=False,
        allow_null=True,
        default=None,
        help_text="Checkpoint that a round without training samples from or evaluates; null: the served one.",
    )
    checkpoints = serializers.ListField(
        child=serializers.IntegerField(),
        required=False,
        default=list,
        help_text="The two to four checkpoints of a trial; the first is the one to beat. Or name them in the settings.",
    )


class ProgressSerializer(strict.Serializer):
    """Progress of the running program."""

    step = serializers.IntegerField()
    total = serializers.IntegerField()
    percent = serializers.FloatField()
    seconds_left = serializers.FloatField(allow_null=True)


class MetricsLineSerializer(strict.Serializer):
    """Metrics of one step. After a resume, repeated steps have new ids."""

    id = serializers.IntegerField()
    job = serializers.CharField()
    step = serializers.IntegerField()
    total = serializers.IntegerField(allow_null=True)
    time = serializers.FloatField(allow_null=True)
    values = serializers.DictField(child=serializers.FloatField())


class GuardSerializer(strict.Serializer):
    """A figure of a round's checkpoint and its base, which should not become worse."""

    name = serializers.CharField()
    before = serializers.FloatField(help_text="Mean of the base.")
    after = serializers.FloatField(help_text="Mean of the checkpoint.")
    difference = serializers.FloatField(help_text="After minus before.")
    error = serializers.FloatField(allow_null=True, help_text="Its standard error; null: fewer than 30 prompts.")
    count = serializers.IntegerField(help_text="Prompts, or guard texts.")
    is_fallen = serializers.BooleanField(help_text="Worse by more than two standard errors.")


class DivergenceSerializer(strict.Serializer):
    """KL in nats per completion, on held-out prompts."""

    name = serializers.CharField(help_text="kl_from_base or kl_from_root.")
    value = serializers.FloatField()
    low = serializers.FloatField(allow_null=True)
    high = serializers.FloatField(allow_null=True)
    error = serializers.FloatField(allow_null=True)
    prompts = serializers.IntegerField()


class RoundGuardsSerializer(strict.Serializer):
    """The guards of a round, and the KL of its checkpoint from base and root."""

    guards = GuardSerializer(many=True)
    fallen = serializers.ListField(child=serializers.CharField(), help_text="A sentence for each guard that fell.")
    divergences = DivergenceSerializer(many=True)


class RoundSerializer(strict.ModelSerializer):
    """A round, as in the list."""

    base = serializers.CharField(source="base.source.name", read_only=True)
    checkpoint = serializers.SerializerMethodField()
    started_by = serializers.CharField(source="started_by.username", read_only=True, default=None)
    reward_terms = serializers.ListField(
        child=serializers.CharField(),
        read_only=True,
        help_text="Reward terms that score the completions of the round.",
    )
    recipe = serializers.CharField(source="recipe.name", read_only=True, help_text="Name of the recipe.")
    demonstrations_used = serializers.IntegerField(
        read_only=True,
        help_text="Number of demonstrations that the round learns from: all that existed at its start, or 0.",
    )
    stages = serializers.SerializerMethodField(help_text="Stages of the round, in order.")
    trial = serializers.IntegerField(
        source="trial.number", read_only=True, default=None, help_text="Number of the trial that its end started."
    )

    class Meta:
        model = Round
        fields: list[str] = [
            "number",
            "status",
            "recipe",
            "stage",
            "stages",
            "learns",
            "base",
            "checkpoint",
            "trial",
            "ranking_count",
            "demonstration_count",
            "demonstrations_used",
            "reward_terms",
            "results",
            "error",
            "started_by",
            "cancel_requested_at",
            "created_at",
            "started_at",
            "finished_at",
        ]

    def get_stages(self, round_: Round) -> list[str]:
        return [stage.name for stage in reports.stages_of(round_)]

    def get_checkpoint(self, round_: Round) -> str | None:
        return str(round_.checkpoint) if round_.checkpoint else None


class RoundDetailSerializer(RoundSerializer):
    """A round with its settings, its progress, and its lines of metrics after `after`."""

    progress = serializers.SerializerMethodField()
    metrics = serializers.SerializerMethodField()
    guards = serializers.SerializerMethodField(help_text="Guards; null: the round measured none, or not yet.")
    estimate = serializers.SerializerMethodField(help_text="Estimate at its start; null: it is of an earlier version.")
    seconds = serializers.SerializerMethodField(help_text="Time of its programs; null: not all have ended.")
    peak_memory_gb = serializers.SerializerMethodField(help_text="Highest memory of its programs so far.")

    class Meta(RoundSerializer.Meta):
        fields = [
            *RoundSerializer.Meta.fields,
            "settings",
            "attempt",
            "heartbeat_at",
            "log_tail",
            "progress",
            "metrics",
            "guards",
            "estimate",
            "seconds",
            "peak_memory_gb",
        ]

    @extend_schema_field(ProgressSerializer(allow_null=True))
    def get_progress(self, round_: Round) -> Any:
        step = reports.step_of(round_) if round_.status == Round.Status.RUNNING else None
        return ProgressSerializer(step).data if step else None

    @extend_schema_field(RoundGuardsSerializer(allow_null=True))
    def get_guards(self, round_: Round) -> Any:
        return guards.as_json(round_)

    @extend_schema_field(RoundEstimateSerializer(allow_null=True))
    def get_estimate(self, round_: Round) -> Any:
        estimate = estimates.Estimate.from_json(round_.estimate)
        return RoundEstimateSerializer(estimate).data if estimate else None

    def get_seconds(self, round_: Round) -> float | None:
        return estimates.took(round_)

    def get_peak_memory_gb(self, round_: Round) -> float | None:
        peak = estimates.peak_memory(round_)
        return peak[0] if peak else None

    @extend_schema_field(MetricsLineSerializer(many=True))
    def get_metrics(self, round_: Round) -> Any:
        return reports.metrics(round_, self.context.get("after", 0))


class LoopSerializer(strict.ModelSerializer):
    """Settings of a project's rounds."""

    round_every = serializers.IntegerField(
        allow_null=True, help_text="New rankings after which a round starts automatically; null: only by hand."
    )
    settings = serializers.DictField(child=serializers.DictField(), required=False)
    gate = serializers.ChoiceField(
        choices=LoopSettings.Gate.values,
        required=False,
        help_text="Who promotes the better checkpoint of a trial: a manager (hand), or the gate at once (automatic).",
    )
    worthwhile_share = serializers.FloatField(
        required=False,
        min_value=0.5,
        max_value=0.99,
        help_text="Later trials are futile once a candidate surely wins a smaller share of its votes; 0.5: never.",
    )

    class Meta:
        model = LoopSettings
        fields = ("round_every", "settings", "gate", "worthwhile_share")


class RoundQuery(strict.Serializer):
    after = serializers.IntegerField(
        required=False, default=0, min_value=0, max_value=2**63 - 1, help_text="Id of the last known line of metrics."
    )


def _project(request: Request, slug: str) -> Project:
    """Return the project if the user manages it. Raise as the pages do otherwise."""
    return members.manager_of(request.user, slug).project


@extend_schema(
    methods=["GET"], operation_id="rounds_list", parameters=[ListQuery], responses=RoundSerializer(many=True)
)
@extend_schema(methods=["POST"], operation_id="rounds_start", request=RoundRequest, responses={201: RoundSerializer})
@api_view(["GET", "POST"])
def round_list(request: Request, slug: str) -> Response:
    """List the project's rounds, newest first, or start a new one, which waits for a worker."""
    project = _project(request, slug)
    if request.method == "GET":
        return as_page(request, reports.rounds_of(project), RoundSerializer, key="number")
    started = _start(project, request, strict.validated(RoundRequest(data=request.data)))
    return Response(RoundSerializer(started).data, status=201)


def _start(project: Project, request: Request, values: dict[str, Any]) -> Round:
    if tried := [str(reports.checkpoint_of(project, pk)) for pk in values["checkpoints"]]:
        values["settings"] = round_settings.changed(values["settings"], {"round": {"checkpoints": tried}})
    if values["learns"] and chosen_recipe(values["settings"], project_recipe(project)).learns:
        return start_round(project, request.user, values["settings"])
    checkpoint_id = values["checkpoint"]
    checkpoint = reports.checkpoint_of(project, checkpoint_id) if checkpoint_id is not None else None
    return start_sampling(project, request.user, values["settings"], checkpoint)


@extend_schema(
    operation_id="rounds_watch",
    parameters=[RoundQuery],
    responses=RoundDetailSerializer,
)
@api_view(["GET"])
def round_detail(request: Request, slug: str, number: int) -> Response:
    """Return a round with its progress and its new metrics."""
    round_ = reports.round_of(_project(request, slug), number)
    query = strict.validated_query(RoundQuery, request)
    return Response(RoundDetailSerializer(round_, context=query).data)


@extend_schema(operation_id="rounds_cancel", request=None, responses=RoundSerializer)
@api_view(["POST"])
def round_cancel(request: Request, slug: str, number: int) -> Response:
    """Cancel a waiting round at once, a running one within seconds. It can be resumed."""
    round_ = reports.round_of(_project(request, slug), number)
    return Response(RoundSerializer(lifecycle.request_cancel(round_)).data)


@extend_schema(operation_id="rounds_resume", request=None, responses=RoundSerializer)
@api_view(["POST"])
def round_resume(request: Request, slug: str, number: int) -> Response:
    """Let a failed or cancelled round continue from its saved state."""
    round_ = reports.round_of(_project(request, slug), number)
    return Response(RoundSerializer(lifecycle.resume(round_)).data)


@extend_schema(methods=["GET"], operation_id="loop_settings", responses=LoopSerializer)
@extend_schema(methods=["PUT"], operation_id="loop_configure", request=LoopSerializer, responses=LoopSerializer)
@api_view(["GET", "PUT"])
def loop_detail(request: Request, slug: str) -> Response:
    """Read or set after how many new rankings a round starts, and the settings that differ from the defaults."""
    project = _project(request, slug)
    if request.method == "GET":
        return Response(LoopSerializer(LoopSettings.objects.filter(project=project).first() or LoopSettings()).data)
    values = strict.validated(LoopSerializer(data=request.data))
    return Response(LoopSerializer(configure(project, **values)).data)
