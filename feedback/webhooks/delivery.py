"""Deliver what is due: claim by conditional update, post outside of transactions, store the answers.

A claimed delivery is due again after `CLAIMED`, so that one of a worker that died is not lost. Of the deliveries of one
webhook about one object only the oldest that waits is due: the order stays, whatever fails.
"""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from datetime import datetime, timedelta
from time import monotonic

from django.db import connection, transaction
from django.utils import timezone

from feedback import audit
from feedback.models import Project, Webhook, WebhookDelivery
from feedback.webhooks import signing
from feedback.webhooks.post import Answer, post

# Seconds from a failed attempt to the next one; then the delivery is given up. The schedule of Standard Webhooks.
RETRIES = (5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400)
DISABLED_AFTER = timedelta(days=5)  # of failures without a success
CLAIMED = timedelta(seconds=60)  # longer than an attempt takes
KEPT = timedelta(days=30)
BATCH, OF_ONE_WEBHOOK = 16, 4  # posts at the same time
STEP_SECONDS = 4.0  # of one task; the schedule starts one every 5 seconds
GONE = 410  # the address asks not to be called any more

CANDIDATES = """
    SELECT id FROM (
        SELECT due.id, due.next_attempt_at,
            row_number() OVER (PARTITION BY due.webhook_id ORDER BY due.next_attempt_at, due.id) AS place
        FROM feedback_webhookdelivery AS due JOIN feedback_webhook AS webhook ON webhook.id = due.webhook_id
        WHERE due.state = 'waiting' AND due.next_attempt_at <= clock_timestamp() AND webhook.disabled_at IS NULL
            AND NOT EXISTS (
                SELECT FROM feedback_webhookdelivery AS earlier
                WHERE earlier.webhook_id = due.webhook_id AND earlier.object = due.object
                    AND earlier.state = 'waiting' AND earlier.id < due.id)
    ) AS placed WHERE place <= %s ORDER BY next_attempt_at, id LIMIT %s"""
CLAIM = """
    UPDATE feedback_webhookdelivery SET next_attempt_at = clock_timestamp() + %s, attempts = attempts + 1
    WHERE id = ANY(%s) AND state = 'waiting' AND next_attempt_at <= clock_timestamp() RETURNING id"""


def deliver_due(seconds: float = STEP_SECONDS) -> int:
    """Deliver what is due, for about so many seconds. Return the number of attempts."""
    until, number = monotonic() + seconds, 0
    while claimed := _claim():
        number += len(claimed)
        deliver(claimed)
        if monotonic() > until:
            break
    return number


def claim_one(delivery: WebhookDelivery) -> list[WebhookDelivery]:
    """Claim a delivery that waits, now; the list is empty if somebody else has it."""
    return _loaded(_claimed([delivery.pk]))


def _claim() -> list[WebhookDelivery]:
    with connection.cursor() as cursor:
        cursor.execute(CANDIDATES, [OF_ONE_WEBHOOK, BATCH])
        candidates = [pk for (pk,) in cursor.fetchall()]
    return _loaded(_claimed(candidates)) if candidates else []


def _claimed(ids: Sequence[int]) -> list[int]:
    with connection.cursor() as cursor:
        cursor.execute(CLAIM, [CLAIMED, list(ids)])
        return [pk for (pk,) in cursor.fetchall()]


def _loaded(ids: Sequence[int]) -> list[WebhookDelivery]:
    return list(WebhookDelivery.objects.filter(pk__in=ids).select_related("webhook__project").order_by("pk"))


def deliver(claimed: Sequence[WebhookDelivery]) -> list[Answer]:
    """Post claimed deliveries at the same time, and store the answers as they come. The threads use no database."""
    answers = []
    with ThreadPoolExecutor(max_workers=BATCH) as threads:
        posts = {threads.submit(post, *_request(delivery)): delivery for delivery in claimed}
        for done in as_completed(posts):
            answers.append(done.result())
            store(posts[done], done.result())
    return answers


def _request(delivery: WebhookDelivery) -> tuple[str, dict[str, str], bytes]:
    body = body_of(delivery)
    headers = {"content-type": "application/json", "user-agent": "Accord-Webhook/1"}
    headers |= signing.headers_of(delivery.webhook, f"msg_{delivery.message_id.hex}", body, timezone.now())
    return delivery.webhook.url, headers, body


def body_of(delivery: WebhookDelivery) -> bytes:
    """Return the body, which has the same bytes at every attempt."""
    body = {"type": delivery.event, "timestamp": delivery.created_at.isoformat(), "data": delivery.data}
    return json.dumps(body, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()


def store(delivery: WebhookDelivery, answer: Answer) -> None:
    """Store the answer to an attempt, unless it was claimed again meanwhile; then that attempt counts.

    A webhook that has failed for `DISABLED_AFTER`, or whose address is gone, is disabled.
    """
    with transaction.atomic():
        failing_since = _store(delivery, answer)
    if answer.status == GONE or (failing_since and failing_since <= timezone.now() - DISABLED_AFTER):
        _disable(delivery.webhook)


def _store(delivery: WebhookDelivery, answer: Answer) -> datetime | None:
    """Store the answer, and return since when the webhook fails; None if it does not."""
    webhook = Webhook.objects.select_for_update(of=("self",)).filter(pk=delivery.webhook_id).first()
    claimed = WebhookDelivery.objects.select_for_update().filter(
        pk=delivery.pk, attempts=delivery.attempts, state=WebhookDelivery.State.WAITING
    )
    current = claimed.first()
    if webhook is None or current is None:
        return None
    now = timezone.now()
    attempt = {"at": now.isoformat(), "status": answer.status, "seconds": answer.seconds, "answer": answer.text}
    current.log = [*current.log, attempt]
    if answer.is_success:
        current.state = WebhookDelivery.State.DELIVERED
        webhook.failing_since = None
    else:
        if current.attempts > len(RETRIES):
            current.state = WebhookDelivery.State.FAILED
        else:
            current.next_attempt_at = now + timedelta(seconds=RETRIES[current.attempts - 1])
        webhook.failing_since = webhook.failing_since or now
    current.save(update_fields=["log", "state", "next_attempt_at"])
    webhook.save(update_fields=["failing_since"])
    return webhook.failing_since


@transaction.atomic
def _disable(webhook: Webhook) -> None:
    lock_project(webhook.project)
    now, enabled = timezone.now(), Webhook.objects.filter(pk=webhook.pk, disabled_at__isnull=True)
    if enabled.update(disabled_at=now, disabled_why=Webhook.Disabled.FAILED):
        update_events(webhook.project)
        with audit.acting("webhooks"):
            audit.record("webhook.disable", webhook.project, webhook, after={"disabled_at": now})


def lock_project(project: Project) -> None:
    """Lock the project, so that changes of its webhooks take turns."""
    Project.objects.select_for_update(no_key=True).get(pk=project.pk)


def update_events(project: Project) -> None:
    """Store with the locked project which events its webhooks want, so that events nobody wants cost no query."""
    lists = Webhook.objects.filter(project=project, disabled_at__isnull=True).values_list("events", flat=True)
    project.webhook_events = sorted({event for events in lists for event in events})
    Project.objects.filter(pk=project.pk).update(webhook_events=project.webhook_events)


def delete_old() -> int:
    """Delete deliveries older than `KEPT`, and return their number."""
    deleted, _by_table = WebhookDelivery.objects.filter(created_at__lt=timezone.now() - KEPT).delete()
    return deleted
