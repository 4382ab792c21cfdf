"""Rows of workers: every write, and which of them are live. All times are those of the database's clock."""

from datetime import timedelta
from typing import Any

from django.db.models import Q, QuerySet
from django.db.models.functions import Now

from training.models import Worker

HEARTBEAT_EVERY = 10.0  # seconds
DEAD_AFTER = timedelta(seconds=30)  # without a heartbeat
KEPT_FOR = timedelta(days=3)  # after its end


def register(host: str, process_id: int, **columns: Any) -> None:
    """Write the row of a worker that has started. It replaces that of an earlier process of the same number."""
    worker = Worker(host=host, process_id=process_id, started_at=Now(), heartbeat_at=Now(), stopped_at=None, **columns)
    Worker.objects.bulk_create(
        [worker],
        update_conflicts=True,
        unique_fields=["host", "process_id"],
        update_fields=["started_at", "heartbeat_at", "stopped_at", *columns],
    )


def beat(host: str, process_id: int, **columns: Any) -> bool:
    """Refresh the heartbeat. Return False if the row is gone: the process was suspended for days."""
    rows = Worker.objects.filter(host=host, process_id=process_id)
    return bool(rows.update(heartbeat_at=Now(), stopped_at=None, **columns))


def mark_stopped(host: str, process_id: int) -> None:
    """Note that the worker has ended by itself, so that it is not taken for a dead one."""
    Worker.objects.filter(host=host, process_id=process_id).update(stopped_at=Now())


def delete_ended() -> int:
    """Delete the rows of workers that ended or died long ago. Return their number."""
    return Worker.objects.filter(heartbeat_at__lt=Now() - KEPT_FOR).delete()[0]


def is_live() -> Q:
    """Return the condition that a worker runs and its heartbeat has not stopped."""
    return Q(stopped_at__isnull=True, heartbeat_at__gte=Now() - DEAD_AFTER)


def live(queue: str) -> QuerySet[Worker]:
    """Return the workers that serve the queue now."""
    return Worker.objects.filter(is_live(), queues__contains=[queue])


def with_liveness() -> QuerySet[Worker]:
    """Return all workers, annotated with `is_live`."""
    return Worker.objects.annotate(is_live=is_live())
