"""The queue of model checks: which checkpoints wait for one, and who is at it. A message is only a nudge, as of rounds.

    waiting ──claim──► waiting, with a heartbeat ──checkpoints.settle_check──► exact_fast, exact_generic or refused
       ▲                  │
       └──release, or no heartbeat for a while

A checkpoint made by a round has its base's verdict, because its architecture is the same.
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
SEND_AGAIN_AFTER = timedelta(minutes=5)  # of waiting: a message can be lost, and a spare one does no harm

# Members of TextChoices are texts, which a type checker cannot see where they have a label.
WAITING: Any = Checkpoint.Verdict.WAITING
STORED: dict[str, Any] = {
    "fast": Checkpoint.Verdict.EXACT_FAST,
    "generic": Checkpoint.Verdict.EXACT_GENERIC,
    "refused": Checkpoint.Verdict.REFUSED,
}


class Verdict(NamedTuple):
    """What `training.learner.check` says of a folder."""

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
        """As a value of `Checkpoint.verdict`."""
        value: str = STORED[self.verdict]
        return value

    @property
    def reason(self) -> str:
        """For `Checkpoint.verdict_reason`: "" for a fast model."""
        reason = f"{self.scoring} rows, {self.decoding} decoding: {self.why}" if self.verdict == "generic" else self.why
        return reason.replace("\0", "")  # PostgreSQL keeps no NUL in text


def waiting() -> QuerySet[Checkpoint]:
    """Return the checkpoints to check: not those that will get the verdict of the base they were made from."""
    of_its_base = Q(kind=Checkpoint.Kind.ROUND, parent__verdict=WAITING)
    return Checkpoint.objects.filter(verdict=WAITING).exclude(of_its_base)


def send(checkpoint_id: int) -> None:
    """Ask the workers for a check, once this transaction is committed. If that fails, the beat asks again."""

    def ask() -> None:
        current_app.send_task(CHECK_CHECKPOINT, [checkpoint_id])
        Checkpoint.objects.filter(pk=checkpoint_id).update(check_queued_at=Now())

    transaction.on_commit(ask, robust=True)


def send_waiting() -> int:
    """Ask again where the message may be lost, or the worker is. Returns for how many checkpoints."""
    Checkpoint.objects.filter(verdict=WAITING, check_heartbeat_at__lt=Now() - LOST_AFTER).update(
        check_heartbeat_at=None, check_queued_at=None
    )
    asked_long_ago = Q(check_queued_at__isnull=True) | Q(check_queued_at__lt=Now() - SEND_AGAIN_AFTER)
    unasked = list(waiting().filter(asked_long_ago, check_heartbeat_at__isnull=True).values_list("pk", flat=True))
    for checkpoint_id in unasked:
        send(checkpoint_id)
    return len(unasked)


def claim(checkpoint_id: int) -> bool:
    """Take a waiting check for this worker. False if it is done, or another worker is at it, which is normal."""
    nobody = Q(check_heartbeat_at__isnull=True) | Q(check_heartbeat_at__lt=Now() - LOST_AFTER)
    rows = Checkpoint.objects.filter(nobody, pk=checkpoint_id, verdict=WAITING)
    return bool(rows.update(check_heartbeat_at=Now()))


def beat(checkpoint_id: int) -> None:
    """Say that the worker is alive."""
    Checkpoint.objects.filter(pk=checkpoint_id, verdict=WAITING).update(check_heartbeat_at=Now())


def release(checkpoint_id: int) -> None:
    """Give the check back, because this worker is being shut down."""
    Checkpoint.objects.filter(pk=checkpoint_id, verdict=WAITING).update(check_heartbeat_at=None, check_queued_at=None)
