"""Queue of model checks: a worker claims a waiting checkpoint. As with rounds, the row decides, not the message.

    waiting ──claim──► waiting, with a heartbeat ──checkpoints.settle_check──► exact_fast, exact_generic or refused
       ▲                  │
       └──release, or no heartbeat for a while

A checkpoint of a round gets the verdict of its base, because its architecture is the same.
"""

from datetime import timedelta
from typing import Any, NamedTuple

from celery import current_app
from django.db import transaction
from django.db.models import Q, QuerySet
from django.db.models.functions import Now

from training.models import Checkpoint

CHECK_CHECKPOINT = "training.tasks.check_checkpoint"
HEARTBEAT_EVERY = 2.0  # seconds
LOST_AFTER = timedelta(seconds=30)  # without a heartbeat
SEND_AGAIN_AFTER = timedelta(minutes=5)  # of waiting: a message can be lost, and one too many does no harm

# Any: mypy does not see that members of TextChoices with a label are strings.
WAITING: Any = Checkpoint.Verdict.WAITING
STORED: dict[str, Any] = {
    "fast": Checkpoint.Verdict.EXACT_FAST,
    "generic": Checkpoint.Verdict.EXACT_GENERIC,
    "refused": Checkpoint.Verdict.REFUSED,
}


class Verdict(NamedTuple):
    """Result of `training.learner.check` for a folder."""

    verdict: str  # "fast", "generic" or "refused"
    scoring: str
    decoding: str
    why: str

    def __str__(self) -> str:
        if self.verdict == "fast":
            return "exact and fast"
        if self.verdict == "generic":
            return f"exact by the generic path ({self.scoring} rows, {self.decoding} decoding): {self.why}"
        return f"refused: {self.why}"

    @property
    def stored(self) -> str:
        """Return the value for `Checkpoint.verdict`."""
        value: str = STORED[self.verdict]
        return value

    @property
    def reason(self) -> str:
        """Return the text for `Checkpoint.verdict_reason`: "" for a fast model."""
        reason = f"{self.scoring} rows, {self.decoding} decoding: {self.why}" if self.verdict == "generic" else self.why
        return reason.replace("\0", "")  # PostgreSQL cannot store NUL in text


def waiting() -> QuerySet[Checkpoint]:
    """Return the checkpoints to check, without those that will get the verdict of their base."""
    gets_verdict_of_base = Q(kind=Checkpoint.Kind.ROUND, parent__verdict=WAITING)
    return Checkpoint.objects.filter(verdict=WAITING).exclude(gets_verdict_of_base)


def send(checkpoint_id: int) -> None:
    """Send the Celery message that checks the checkpoint, on commit. If that fails, the beat sends it again."""

    def send_message() -> None:
        current_app.send_task(CHECK_CHECKPOINT, [checkpoint_id])
        Checkpoint.objects.filter(pk=checkpoint_id).update(check_queued_at=Now())

    transaction.on_commit(send_message, robust=True)


def send_waiting() -> int:
    """Send again the messages of checks that have waited for long, or whose worker is lost. Return their number."""
    Checkpoint.objects.filter(verdict=WAITING, check_heartbeat_at__lt=Now() - LOST_AFTER).update(
        check_heartbeat_at=None, check_queued_at=None
    )
    sent_long_ago = Q(check_queued_at__isnull=True) | Q(check_queued_at__lt=Now() - SEND_AGAIN_AFTER)
    unsent = list(waiting().filter(sent_long_ago, check_heartbeat_at__isnull=True).values_list("pk", flat=True))
    for checkpoint_id in unsent:
        send(checkpoint_id)
    return len(unsent)


def claim(checkpoint_id: int, worker: str) -> bool:
    """Claim a waiting check for this worker. Return False if it is done or another worker has it, which is normal."""
    is_free = Q(check_heartbeat_at__isnull=True) | Q(check_heartbeat_at__lt=Now() - LOST_AFTER)
    rows = Checkpoint.objects.filter(is_free, pk=checkpoint_id, verdict=WAITING)
    return bool(rows.update(check_heartbeat_at=Now(), check_worker=worker))


def beat(checkpoint_id: int) -> None:
    """Refresh the heartbeat of the check."""
    Checkpoint.objects.filter(pk=checkpoint_id, verdict=WAITING).update(check_heartbeat_at=Now())


def release(checkpoint_id: int) -> None:
    """Return the check to the queue because this worker shuts down."""
    Checkpoint.objects.filter(pk=checkpoint_id, verdict=WAITING).update(check_heartbeat_at=None, check_queued_at=None)
