"""Webhooks: make, change, rotate the secret, switch off and on, delete, test, deliver again."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from django.db import transaction
from django.db.models import OuterRef, QuerySet, Subquery
from django.utils import timezone
from django.utils.translation import gettext as _

from feedback import audit
from feedback.errors import Conflict, Invalid, NotFound
from feedback.models import Membership, Project, Webhook, WebhookDelivery
from feedback.webhooks import EVENTS, delivery, signing
from feedback.webhooks.addresses import check_url
from feedback.webhooks.events import TEST

MAX_WEBHOOKS = 20  # of a project
MAX_OVERLAP_MINUTES = 7 * 24 * 60
AUDITED = ("name", "url", "events", "disabled_at")


@dataclass(frozen=True)
class MadeWebhook:
    """A webhook, and its secret, which cannot be shown again."""

    webhook: Webhook
    secret: str


def webhooks_of(project: Project) -> QuerySet[Webhook]:
    """Return the project's webhooks by name, with `last_state` of the last delivery."""
    last = WebhookDelivery.objects.filter(webhook=OuterRef("pk")).order_by("-created_at", "-pk")
    return (
        project.webhooks.select_related("made_by")
        .annotate(last_state=Subquery(last.values("state")[:1]))
        .order_by("name", "pk")
    )


def find_webhook(project: Project, webhook_id: int) -> Webhook:
    """Return the project's webhook with this id. Raises NotFound."""
    webhook = webhooks_of(project).filter(pk=webhook_id).first()
    if webhook is None:
        raise NotFound(_("This project has no such webhook."))
    webhook.project = project
    return webhook


def make(manager: Membership, name: str, url: str, events: Sequence[str]) -> MadeWebhook:
    """Make a webhook. Raises Invalid for an address or an event that cannot be used, Conflict if there are too many."""
    check_url(url)  # resolves the name: not within the transaction
    project = manager.project
    with transaction.atomic():
        delivery.lock_project(project)
        if project.webhooks.count() >= MAX_WEBHOOKS:
            raise Conflict(_("A project has at most %(most)s webhooks: delete one first.") % {"most": MAX_WEBHOOKS})
        webhook = Webhook.objects.create(
            project=project, name=name.strip(), url=url, events=_checked(events), made_by=manager.user
        )
        delivery.update_events(project)
        audit.record("webhook.create", project, webhook, after=audit.values_of(webhook, AUDITED), actor=manager.user)
    return MadeWebhook(webhook, signing.secret_of(webhook.salt))


def change(
    webhook: Webhook,
    *,
    name: str | None = None,
    url: str | None = None,
    events: Sequence[str] | None = None,
    is_enabled: bool | None = None,
) -> Webhook:
    """Change what is not None. Enabling delivers what waits. Raises Invalid."""
    if url is not None:
        check_url(url)
    values = {"name": name and name.strip(), "url": url, "events": None if events is None else _checked(events)}
    with transaction.atomic():
        current = _lock(webhook)
        before = audit.values_of(current, AUDITED)
        for field, value in values.items():
            if value is not None:
                setattr(current, field, value)
        if is_enabled is not None and is_enabled != (current.disabled_at is None):
            current.disabled_at = None if is_enabled else timezone.now()
            current.disabled_why = "" if is_enabled else str(Webhook.Disabled.HAND)
            current.failing_since = None
        current.save()
        delivery.update_events(webhook.project)
        audit.record("webhook.change", webhook.project, current, before=before, after=audit.values_of(current, AUDITED))
    return current


@transaction.atomic
def delete(webhook: Webhook) -> None:
    """Delete a webhook with its deliveries."""
    current = _lock(webhook)
    audit.record("webhook.delete", webhook.project, current, before=audit.values_of(current, AUDITED))
    current.delete()
    delivery.update_events(webhook.project)


@transaction.atomic
def rotate(webhook: Webhook, overlap: timedelta) -> MadeWebhook:
    """Give the webhook a new secret. Deliveries are signed with both until the overlap ends."""
    current = _lock(webhook)
    fresh = Webhook()
    current.former_salt, current.former_until, current.salt = current.salt, timezone.now() + overlap, fresh.salt
    current.save(update_fields=["salt", "former_salt", "former_until"])
    audit.record("webhook.rotate", webhook.project, current, after={"former_until": current.former_until})
    return MadeWebhook(current, signing.secret_of(current.salt))


def send_test(webhook: Webhook) -> WebhookDelivery:
    """Post a test event now and return its delivery. If it fails, it is not tried again."""
    if webhook.disabled_at is not None:
        raise Conflict(_("This webhook is disabled: enable it first."))
    with transaction.atomic():
        test = WebhookDelivery.objects.create(webhook=webhook, event=TEST, data={"project": webhook.project.slug})
        WebhookDelivery.objects.filter(pk=test.pk).update(object=f"test:{test.pk}")
        audit.record("webhook.test", webhook.project, webhook)
    delivery.deliver(delivery.claim_one(test))
    WebhookDelivery.objects.filter(pk=test.pk, state=WebhookDelivery.State.WAITING).update(
        state=WebhookDelivery.State.FAILED
    )
    test.refresh_from_db()
    return test


@transaction.atomic
def redeliver(webhook: Webhook, delivery_id: int) -> WebhookDelivery:
    """Let a delivery that has ended be delivered again, at once and with the whole schedule of attempts.

    Raises NotFound, or Conflict if it waits or the webhook is disabled.
    """
    again = WebhookDelivery.objects.select_for_update().filter(webhook=webhook, pk=delivery_id).first()
    if again is None:
        raise NotFound(_("This webhook has no such delivery: it may have been deleted after 30 days."))
    if webhook.disabled_at is not None:
        raise Conflict(_("This webhook is disabled: enable it first."))
    if again.state == WebhookDelivery.State.WAITING:
        raise Conflict(_("This delivery waits already: it is tried again by itself."))
    again.state, again.attempts, again.next_attempt_at = WebhookDelivery.State.WAITING, 0, timezone.now()
    again.save(update_fields=["state", "attempts", "next_attempt_at"])
    audit.record("webhook.redeliver", webhook.project, webhook, after={"delivery": again.pk, "event": again.event})
    return again


def _lock(webhook: Webhook) -> Webhook:
    """Lock the project, then the webhook, and return it as it is now. Raises NotFound if it was deleted."""
    delivery.lock_project(webhook.project)
    current = Webhook.objects.select_for_update(of=("self",)).filter(pk=webhook.pk).first()
    if current is None:
        raise NotFound(_("This project has no such webhook."))
    current.project = webhook.project
    return current


def _checked(events: Sequence[str]) -> list[str]:
    """Return the events in their order. Raises Invalid for an unknown one, or none."""
    if unknown := next((event for event in events if event not in EVENTS), None):
        raise Invalid(_('There is no event "%(event)s".') % {"event": unknown})
    if not events:
        raise Invalid(_("Choose at least one event."))
    return [event for event in EVENTS if event in events]
