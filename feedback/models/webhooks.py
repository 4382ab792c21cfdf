"""Webhooks of a project, and the deliveries of events to them."""

import secrets
import uuid

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from feedback.models.people import Project, User


def new_salt() -> str:
    return secrets.token_hex(32)


class Webhook(models.Model):
    """An address that is told of a project's events.

    The signing secret is derived from `salt` and the installation's SECRET_KEY (feedback/webhooks/signing.py), so that
    the database does not have it.
    """

    class Disabled(models.TextChoices):
        HAND = "hand", _("by a manager")
        FAILED = "failed", _("after failures")

    project = models.ForeignKey(Project, models.CASCADE, related_name="webhooks")
    name = models.CharField(_("Name"), max_length=100)
    url = models.CharField(_("Address"), max_length=2000)
    events = ArrayField(models.CharField(max_length=40), help_text="Names of feedback.webhooks.EVENTS.")
    salt = models.CharField(max_length=64, default=new_salt, editable=False)
    former_salt = models.CharField(max_length=64, blank=True, editable=False, help_text="That of the rotated secret.")
    former_until = models.DateTimeField(null=True, editable=False, help_text="Until when both secrets sign.")
    failing_since = models.DateTimeField(null=True, editable=False, help_text="First failure since the last success.")
    disabled_at = models.DateTimeField(null=True, editable=False)
    disabled_why = models.CharField(max_length=6, choices=Disabled.choices, blank=True, editable=False)
    made_by = models.ForeignKey(User, models.SET_NULL, null=True, editable=False, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(events__len__gte=1), name="webhook_has_an_event"),
            models.CheckConstraint(
                condition=Q(disabled_at__isnull=True, disabled_why="")
                | Q(disabled_at__isnull=False, disabled_why__in=["hand", "failed"]),
                name="webhook_disabled_why",
            ),
        ]

    def __str__(self) -> str:
        return self.name


class WebhookDelivery(models.Model):
    """An event for one webhook: a row of the outbox until it is delivered or given up, then of the log.

    It is written in the transaction of the event. Those of one object are delivered in the order of their ids.
    """

    class State(models.TextChoices):
        WAITING = "waiting", _("waiting")
        DELIVERED = "delivered", _("delivered")
        FAILED = "failed", _("given up")

    webhook = models.ForeignKey(Webhook, models.CASCADE, related_name="deliveries", db_index=False)
    message_id = models.UUIDField(default=uuid.uuid4, help_text="The same for all webhooks and all attempts.")
    event = models.CharField(max_length=40)
    object = models.CharField(max_length=80, help_text="What it is about, such as round:3.")
    data = models.JSONField()
    state = models.CharField(max_length=9, choices=State.choices, default=State.WAITING)
    attempts = models.PositiveSmallIntegerField(default=0, help_text="Since the event or the last redelivery.")
    next_attempt_at = models.DateTimeField(default=timezone.now)
    log = models.JSONField(default=list, help_text="All attempts: at, status, seconds, answer.")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        verbose_name_plural = "webhook deliveries"
        constraints = [
            models.CheckConstraint(
                condition=Q(state__in=["waiting", "delivered", "failed"]), name="webhook_delivery_state"
            )
        ]
        indexes = [
            models.Index(fields=["webhook", "-created_at", "-id"], name="webhook_delivery_newest"),
            models.Index(fields=["next_attempt_at"], name="webhook_delivery_due", condition=Q(state="waiting")),
            models.Index(
                fields=["webhook", "object", "id"], name="webhook_delivery_order", condition=Q(state="waiting")
            ),
            models.Index(fields=["created_at"], name="webhook_delivery_oldest"),
        ]

    def __str__(self) -> str:
        return f"{self.event} to {self.webhook}"
