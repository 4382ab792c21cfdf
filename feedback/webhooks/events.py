"""The events, and the outbox that they are written to."""

import uuid
from typing import Any

from django.utils.translation import gettext_lazy as _

from feedback.models import Project, Webhook, WebhookDelivery

# Every event: its name, and its words on the page.
EVENTS = {
    "ranking.recorded": _("A ranking was recorded"),
    "comparison.completed": _("A comparison has all its rankings"),
    "work.waiting": _("Comparisons wait for rankings, after there were none"),
    "round.started": _("A round started"),
    "round.finished": _("A round finished"),
    "round.failed": _("A round failed"),
    "trial.decided": _("A trial was decided"),
    "checkpoint.promoted": _("A checkpoint was promoted"),
}
TEST = "test"  # the event of the test button


def emit(project: Project, event: str, thing: str, data: dict[str, Any]) -> None:
    """Write an event to the outbox, in the current transaction, for each of the project's webhooks that want it.

    thing: what it is about, such as "round:3"; the events of one thing are delivered in order. Its row must be locked
    or new in this transaction, so that the order of the ids is that of the commits.
    """
    assert event in EVENTS, event
    if event not in project.webhook_events:
        return
    webhooks = Webhook.objects.filter(project=project, disabled_at__isnull=True, events__contains=[event])
    message_id = uuid.uuid4()
    WebhookDelivery.objects.bulk_create(
        WebhookDelivery(webhook=webhook, message_id=message_id, event=event, object=thing, data=data)
        for webhook in webhooks
    )
