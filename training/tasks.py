"""Celery tasks. The state of a row decides what is done, never the message.

`run_round` and `check_checkpoint` load models, and `settle_checkpoint_files` removes their files: these go to the queue
`gpu`. Its workers run one task at a time in their own process (`--pool solo`). All other tasks go to the queue
`default`. The schedule is in the settings.
"""

from typing import Any

from celery import shared_task
from celery.signals import task_prerun, worker_ready, worker_shutdown, worker_shutting_down

from feedback import audit
from training import gate
from training.checkpoints import checks, disk
from training.rounds import lifecycle
from training.rounds.schedule import start_due


@shared_task
def run_round(round_id: int) -> None:
    from training.run_round.run_round import run

    run(round_id)


@shared_task
def check_checkpoint(checkpoint_id: int) -> None:
    from training.run_round import probe_model

    probe_model.run(checkpoint_id)


@shared_task
def settle_checkpoint_files() -> None:
    """Remove the files of deletions, and measure those that nobody has measured, on the host that wrote them."""
    disk.settle()


@shared_task
def send_unsettled_files() -> None:
    disk.send_unsettled()


@shared_task
def send_waiting_checks() -> None:
    checks.send_waiting()


@shared_task
def send_waiting_rounds() -> None:
    lifecycle.send_waiting()


@shared_task
def sweep_lost_rounds() -> None:
    lifecycle.sweep_lost()


@shared_task
def start_due_rounds() -> None:
    start_due()


@shared_task
def settle_trials() -> None:
    gate.settle_open_trials()


@shared_task
def clear_sessions() -> None:
    """Delete expired sessions and counts of wrong passwords; Django does not do it by itself."""
    from feedback.web.sessions import SessionStore, clear_expired_counts

    SessionStore.clear_expired()
    clear_expired_counts()


@shared_task
def sweep_leases() -> None:
    from feedback.queue import leases

    leases.sweep()


@shared_task
def delete_idempotent_responses() -> None:
    from feedback.api import idempotency, throttles

    idempotency.delete_expired()
    throttles.delete_old_counts()


@shared_task
def run_imports() -> None:
    """Import uploaded files for a few seconds; the schedule continues, so that other tasks run in between."""
    from feedback.imports import uploads

    uploads.run_waiting()


@shared_task
def deliver_webhooks() -> None:
    """Post the events that are due for a few seconds; the schedule continues."""
    from feedback.webhooks import delivery

    delivery.deliver_due()


@shared_task
def delete_webhook_deliveries() -> None:
    from feedback.webhooks import delivery

    delivery.delete_old()


@shared_task
def estimate_reliability() -> None:
    from feedback.quality import reliability

    reliability.refresh()


@shared_task
def count_quality() -> None:
    from feedback.reports import own_quality, quality_snapshot

    quality_snapshot.refresh()
    own_quality.refresh()


@shared_task
def rate_sources() -> None:
    from feedback.reports import source_ratings

    source_ratings.refresh()


@shared_task
def delete_ended_workers() -> None:
    from training.workers import rows

    rows.delete_ended()


@task_prerun.connect
def name_the_actor(task: Any, **kwargs: Any) -> None:
    """Let the audit log name the task where nothing else, such as the gate, is named."""
    audit.begin_task(task.name.rpartition(".")[2])


@worker_ready.connect
def begin_heartbeat(sender: Any, **kwargs: Any) -> None:
    """Let the worker's row show that it is alive."""
    from training.workers import heartbeat

    heartbeat.begin(list(sender.app.amqp.queues.consume_from))


@worker_shutdown.connect
def end_heartbeat(**kwargs: Any) -> None:
    from training.workers import heartbeat

    heartbeat.end()


@worker_shutting_down.connect
def return_round(**kwargs: Any) -> None:
    """Let a worker that shuts down return its round to the queue instead of waiting for the round's end."""
    from training.run_round import heartbeat

    heartbeat.shutting_down.set()
