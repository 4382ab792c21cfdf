"""API of the workers, for managers."""

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from feedback.actions import members
from feedback.api import strict
from feedback.api.views import api_view
from training.workers import report
from training.workers.report import Work


class GpuSerializer(strict.Serializer):
    """A GPU, as nvidia-smi reports it. A figure that it does not have is null."""

    name = serializers.CharField()
    memory_total = serializers.IntegerField(allow_null=True, help_text="Bytes.")
    memory_used = serializers.IntegerField(allow_null=True, help_text="Bytes, by all processes.")
    percent = serializers.IntegerField(allow_null=True, help_text="Load.")


class RunningWorkSerializer(strict.Serializer):
    """Round or model check that a worker runs. Those of other projects have no number and no name."""

    kind = serializers.ChoiceField(choices=["round", "check"])
    round = serializers.SerializerMethodField(help_text="Number of the round.")
    stage = serializers.SerializerMethodField(help_text="Stage of the round.")
    checkpoint = serializers.SerializerMethodField(help_text="Id of the checkpoint that is checked.")

    def get_round(self, work: Work) -> int | None:
        return work.round.number if work.round and work.is_visible else None

    def get_stage(self, work: Work) -> str | None:
        return work.round.stage if work.round and work.is_visible else None

    def get_checkpoint(self, work: Work) -> int | None:
        return work.checkpoint.pk if work.checkpoint and work.is_visible else None


class WorkerSerializer(strict.Serializer):
    """A worker with its last report."""

    host = serializers.CharField(source="worker.host")
    process_id = serializers.IntegerField(source="worker.process_id")
    queues = serializers.ListField(source="worker.queues", child=serializers.CharField())
    state = serializers.ChoiceField(choices=["live", "dead", "stopped"])
    work = RunningWorkSerializer(many=True)
    version = serializers.CharField(source="worker.version", help_text="Commit of its code; empty: not known.")
    cpu_name = serializers.CharField(source="worker.cpu_name")
    cpu_count = serializers.IntegerField(source="worker.cpu_count", help_text="CPUs that it may use.")
    cpu_percent = serializers.FloatField(source="worker.cpu_percent", help_text="Load of the machine's CPU.")
    gpus = GpuSerializer(
        source="worker.gpus",
        many=True,
        allow_null=True,
        help_text='Null: not known, or the worker does not serve the queue "gpu".',
    )
    memory_total = serializers.IntegerField(source="worker.memory_total", help_text="Bytes of the machine.")
    memory_used = serializers.IntegerField(source="worker.memory_used", help_text="Bytes, by all processes.")
    process_memory = serializers.IntegerField(
        source="worker.process_memory", help_text="Bytes, by the worker and its programs."
    )
    started_at = serializers.DateTimeField(source="worker.started_at")
    heartbeat_at = serializers.DateTimeField(source="worker.heartbeat_at")
    stopped_at = serializers.DateTimeField(source="worker.stopped_at", allow_null=True)


class QueueSerializer(strict.Serializer):
    """A queue of the whole site, counted from the rows of rounds and checks."""

    name = serializers.CharField()
    live_workers = serializers.IntegerField()
    waiting_rounds = serializers.IntegerField()
    waiting_checks = serializers.IntegerField()
    running_rounds = serializers.IntegerField()
    running_checks = serializers.IntegerField()


class MachinesSerializer(strict.Serializer):
    workers = WorkerSerializer(many=True)
    queues = QueueSerializer(many=True)
    warnings = serializers.ListField(child=serializers.CharField(), help_text="Sentences.")
    as_of = serializers.DateTimeField()


@extend_schema(operation_id="machines_list", responses=MachinesSerializer)
@api_view(["GET"])
def machines_detail(request: Request, slug: str) -> Response:
    """Return the site's workers with their heartbeats, what they run, and what waits for them."""
    project = members.manager_of(request.user, slug).project
    return Response(MachinesSerializer(report.machines_of(project)).data)
