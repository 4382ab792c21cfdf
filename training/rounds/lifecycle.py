"""State machine of a round, and the only code that changes a round's state.

    waiting ──claim──► running ──finish──► finished
       ▲                  │ ├──fail, or the worker is lost──► failed ────┐
       │                  │ └──cancel──► cancelled ──────────────────────┤
       └──release─────────┴────────────────────◄──resume─────────────────┘

`rounds.start` creates waiting rounds. A worker's writes carry its `Claim`: the round and the attempt that it won. If
the round has ended or belongs to another worker by then, they change nothing and raise ClaimLost. All times are those
of the database's clock, because the clocks of workers on other hosts may differ.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from celery import current_app
from django.db import IntegrityError, transaction
from django.db.models import F, Q
from django.db.models.functions import Coalesce, Now
from django.utils.translation import gettext as _
from django.utils.translation import gettext_noop as in_english

from feedback import audit, webhooks
from feedback.errors import Conflict
from training import checkpoints
from training.models import Metric, Round
from training.rounds import results

RUN_ROUND = "training.tasks.run_round"
HEARTBEAT_EVERY = 2.0  # seconds
LOST_AFTER = timedelta(seconds=30)  # without a heartbeat
SEND_AGAIN_AFTER = timedelta(minutes=5)  # of waiting: a message can be lost, and one too many does no harm

# Any: mypy does not see that members of TextChoices with a label are strings.
Status: Any = Round.Status


@dataclass(frozen=True)
class Claim:
    """A worker's right to change a round: valid for one attempt."""

    round_id: int
    attempt: int

    @property
    def rows(self) -> Any:
        """Return a queryset of the round; it is empty once this claim is lost."""
        return Round.objects.filter(pk=self.round_id, attempt=self.attempt, status=Status.RUNNING)


class ClaimLost(Exception):
    """Another worker has the round, or it has ended."""


def send(round_id: int) -> None:
    """Send the Celery message that runs a waiting round, on commit.

    If the broker cannot be reached then, no error is raised: the beat sends the message again.
    """

    def send_message() -> None:
        current_app.send_task(RUN_ROUND, [round_id])
        Round.objects.filter(pk=round_id).update(queued_at=Now())

    transaction.on_commit(send_message, robust=True)


def send_waiting() -> int:
    """Send again the messages of rounds that have waited for long. Return their number."""
    sent_long_ago = Q(queued_at__isnull=True) | Q(queued_at__lt=Now() - SEND_AGAIN_AFTER)
    waiting = list(Round.objects.filter(sent_long_ago, status=Status.WAITING).values_list("pk", flat=True))
    for round_id in waiting:
        send(round_id)
    return len(waiting)


def claim(round_id: int, worker: str) -> Claim | None:
    """Claim a waiting round for this worker. Return None if it is not waiting any more, which is normal."""
    with transaction.atomic():
        won = Round.objects.filter(pk=round_id, status=Status.WAITING).update(
            status=Status.RUNNING,
            worker=worker,
            attempt=F("attempt") + 1,
            heartbeat_at=Now(),
            started_at=Coalesce("started_at", Now()),
            cancel_requested_at=None,
            error="",
            log_tail="",
        )
        if not won:
            return None
        round_ = Round.objects.select_related("project").get(pk=round_id)
        _announce(round_, "round.started")
        return Claim(round_id, round_.attempt)


def _announce(round_: Round, event: str) -> None:
    """Tell the webhooks of a locked round."""
    project = round_.project
    data = {"project": project.slug, "round": round_.number, "recipe": round_.recipe.name, "attempt": round_.attempt}
    if event == "round.finished":
        data["checkpoint"] = str(round_.checkpoint) if round_.checkpoint else None
    if event == "round.failed":
        data["error"] = round_.error
    webhooks.emit(project, event, f"round:{round_.number}", data)


def beat(claim: Claim, log_tail: str | None = None) -> bool:
    """Refresh the heartbeat. Return whether a person asked to cancel the round. Raise ClaimLost.

    log_tail: the end of the running program's log, where it has changed.
    """
    changes: dict[str, Any] = {} if log_tail is None else {"log_tail": log_tail}
    if not claim.rows.update(heartbeat_at=Now(), **changes):
        raise ClaimLost
    return claim.rows.filter(cancel_requested_at__isnull=False).exists()


def check_claim(claim: Claim) -> None:
    """Raise ClaimLost if the claim is lost. Otherwise lock the round, so that it is held until the transaction ends."""
    if not claim.rows.select_for_update(no_key=True).exists():
        raise ClaimLost


def set_stage(claim: Claim, stage: str) -> None:
    """Set the stage of the round. Raise ClaimLost."""
    if not claim.rows.update(stage=stage):
        raise ClaimLost


def store_result(claim: Claim, name: str, result: dict[str, Any]) -> None:
    """Store the result of a finished program, or facts about its input, under a name. Raise ClaimLost."""
    with transaction.atomic():
        round_ = claim.rows.select_for_update().first()
        if round_ is None:
            raise ClaimLost
        round_.results[name] = result
        round_.save(update_fields=["results"])


def record_metrics(claim: Claim, job: str, lines: Iterable[dict[str, Any]], from_start: bool) -> None:
    """Insert or update lines of metrics.jsonl. Raise ClaimLost.

    `from_start`: the lines are the whole file. A stored step after its last line was undone by a resume, so it is
    deleted.
    """
    rows = [Metric(round_id=claim.round_id, job=job, step=line["step"], values=without_step(line)) for line in lines]
    with transaction.atomic():
        check_claim(claim)
        if from_start:
            last = rows[-1].step if rows else -1
            Metric.objects.filter(round_id=claim.round_id, job=job, step__gt=last).delete()
        Metric.objects.bulk_create(
            rows, update_conflicts=True, unique_fields=["round", "job", "step"], update_fields=["values"]
        )


def without_step(line: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in line.items() if name != "step"}


@transaction.atomic
def request_cancel(round_: Round) -> Round:
    """Cancel a round: at once if it waits, within seconds if it runs. Raise Conflict if it has ended."""
    if not _change(round_, [Status.WAITING], status=Status.CANCELLED, finished_at=Now()) and not _change(
        round_, [Status.RUNNING], cancel_requested_at=Coalesce("cancel_requested_at", Now())
    ):
        raise Conflict(
            _("Round %(number)s has already ended: it is %(status)s.")
            % {"number": round_.number, "status": round_.status}
        )
    audit.record("round.cancel", round_.project, round_, after={"status": round_.status})
    return round_


def resume(round_: Round) -> Round:
    """Let a failed or cancelled round continue from its programs' saved state.

    Raises Conflict if it is neither, or a checkpoint that it needs cannot be used any more.
    """
    try:
        with transaction.atomic():
            checkpoints.lock_project(round_.project)
            checkpoints.read_state(round_.base)
            checkpoints.check_usable(round_.base)
            checkpoints.check_resumable(round_)
            before = Round.objects.values_list("status", flat=True).get(pk=round_.pk)
            resumed = _change(
                round_,
                [Status.FAILED, Status.CANCELLED],
                status=Status.WAITING,
                finished_at=None,
                cancel_requested_at=None,
                queued_at=None,
            )
            if not resumed:
                raise Conflict(
                    _("Round %(number)s is %(status)s: only a failed or cancelled round can resume.")
                    % {"number": round_.number, "status": round_.status}
                )
            audit.record("round.resume", round_.project, round_, before={"status": before})
            send(round_.pk)
    except IntegrityError as error:
        raise Conflict(_("Another round of this project is active: wait until it ends, or cancel it first.")) from error
    return round_


def _change(round_: Round, statuses: list[str], **values: Any) -> bool:
    """Update the round if it has one of these statuses, reload it, and return whether it was updated."""
    changed = Round.objects.filter(pk=round_.pk, status__in=statuses).update(**values)
    round_.refresh_from_db()
    return bool(changed)


def release(claim: Claim) -> None:
    """Return the round to the queue because this worker shuts down. The next worker resumes it."""
    claim.rows.update(status=Status.WAITING, worker="", queued_at=None)


def cancel(claim: Claim) -> None:
    """End the round as cancelled, after its program has stopped."""
    claim.rows.update(status=Status.CANCELLED, finished_at=Now())


def fail(claim: Claim, error: str, log_tail: str = "") -> None:
    """End the round as failed, with an error message for people and the end of the program's log."""
    # PostgreSQL cannot store NUL in text, and a program can print it.
    error, log_tail = error.replace("\0", ""), log_tail.replace("\0", "")
    with transaction.atomic():
        if claim.rows.update(status=Status.FAILED, finished_at=Now(), error=error, log_tail=log_tail):
            _announce(Round.objects.select_related("project").get(pk=claim.round_id), "round.failed")


def finish(claim: Claim, outcome: results.Outcome) -> None:
    """Write the checkpoint, if the round made one, completions and comparisons, and its end, in one transaction.

    Raises ClaimLost, or Cancelled if a person asked to cancel before the commit.
    """
    with transaction.atomic():
        round_ = claim.rows.select_for_update(of=("self",)).select_related("project", "base__source").first()
        if round_ is None:
            raise ClaimLost
        if round_.cancel_requested_at is not None:
            raise Cancelled
        round_.checkpoint = results.write(round_, outcome)
        round_.status, round_.finished_at, round_.stage = Status.FINISHED, Now(), round_.last_stage.name
        round_.log_tail = ""  # no program runs any more, and none failed
        round_.save(update_fields=["checkpoint", "trial", "status", "finished_at", "stage", "log_tail", "results"])
        _announce(round_, "round.finished")


class Cancelled(Exception):
    """A person asked to cancel the round that this worker runs."""


def sweep_lost() -> int:
    """End rounds whose heartbeat is too old, as failed or cancelled. Return their number."""
    lost = Round.objects.filter(status=Status.RUNNING, heartbeat_at__lt=Now() - LOST_AFTER)
    cancelled = lost.filter(cancel_requested_at__isnull=False).update(status=Status.CANCELLED, finished_at=Now())
    error = in_english(
        "The worker's heartbeat stopped (it was killed, ran out of memory, or its machine went down). "
        "Resume the round to continue from its saved state."
    )
    with transaction.atomic():
        failed = list(lost.select_related("project").select_for_update(of=("self",)).order_by("pk"))
        lost.filter(pk__in=[round_.pk for round_ in failed]).update(
            status=Status.FAILED, finished_at=Now(), error=error
        )
        for round_ in failed:
            round_.error = error
            _announce(round_, "round.failed")
    return cancelled + len(failed)
