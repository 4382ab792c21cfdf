"""Webhooks of a project and their deliveries, for managers."""

from datetime import timedelta
from typing import Any

from django.utils.translation import gettext as _
from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from feedback.actions import members, webhooks
from feedback.api import strict
from feedback.api.idempotency import show_once
from feedback.api.views import api_view
from feedback.models import Webhook, WebhookDelivery
from feedback.reports import webhook_log
from feedback.reports.data.pages import MAX_ROWS_PER_PAGE, ROWS_PER_PAGE
from feedback.webhooks import EVENTS


class WebhookSerializer(strict.ModelSerializer):
    """A webhook without its secret, which is in the answers to its creation and to a rotation only."""

    events = serializers.ListField(child=serializers.ChoiceField(choices=list(EVENTS)))
    is_enabled = serializers.SerializerMethodField()
    disabled_why = serializers.ChoiceField(choices=["", *Webhook.Disabled.values], read_only=True)
    failing_since = serializers.DateTimeField(
        read_only=True, allow_null=True, help_text="First failure since the last success; null: it does not fail."
    )

    class Meta:
        model = Webhook
        fields: tuple[str, ...] = (
            *("id", "name", "url", "events", "is_enabled", "disabled_at", "disabled_why", "failing_since"),
            *("former_until", "created_at"),
        )

    def get_is_enabled(self, webhook: Webhook) -> bool:
        return webhook.disabled_at is None


class MadeWebhookSerializer(WebhookSerializer):
    """A webhook with its secret, which is in no later answer."""

    secret = serializers.CharField(read_only=True)

    class Meta(WebhookSerializer.Meta):
        fields = (*WebhookSerializer.Meta.fields, "secret")


class WebhookRequest(strict.Serializer):
    name = serializers.CharField(max_length=100)
    url = serializers.CharField(max_length=2000)
    events = serializers.ListField(child=serializers.ChoiceField(choices=list(EVENTS)), allow_empty=False)


class WebhookChangeRequest(strict.Serializer):
    """Changes of a webhook."""

    name = serializers.CharField(max_length=100, required=False)
    url = serializers.CharField(max_length=2000, required=False)
    events = serializers.ListField(
        child=serializers.ChoiceField(choices=list(EVENTS)), allow_empty=False, required=False
    )
    is_enabled = serializers.BooleanField(required=False, help_text="Enabling delivers what waits.")


class WebhookRotateRequest(strict.Serializer):
    """The rotation of a secret: minutes for which both secrets sign."""

    overlap_minutes = serializers.IntegerField(min_value=0, max_value=webhooks.MAX_OVERLAP_MINUTES, default=24 * 60)


class AttemptSerializer(strict.Serializer):
    at = serializers.DateTimeField()
    status = serializers.IntegerField(allow_null=True, help_text="Null: there was no answer.")
    seconds = serializers.FloatField()
    answer = serializers.CharField(help_text="Beginning of the answer, or the reason why there was none.")


class DeliverySerializer(strict.ModelSerializer):
    """An event for a webhook, with all attempts to deliver it."""

    message_id = serializers.SerializerMethodField(help_text="Header `webhook-id`; the same at every attempt.")
    event = serializers.CharField(help_text="One of the events, or `test`.")
    data = serializers.DictField()
    next_attempt_at = serializers.SerializerMethodField()
    attempts = serializers.SerializerMethodField()

    class Meta:
        model = WebhookDelivery
        fields = ("id", "message_id", "event", "object", "data", "state", "created_at", "next_attempt_at", "attempts")

    def get_message_id(self, delivery: WebhookDelivery) -> str:
        return f"msg_{delivery.message_id.hex}"

    @extend_schema_field(serializers.DateTimeField(allow_null=True))
    def get_next_attempt_at(self, delivery: WebhookDelivery) -> Any:
        return delivery.next_attempt_at if delivery.state == WebhookDelivery.State.WAITING else None

    @extend_schema_field(AttemptSerializer(many=True))
    def get_attempts(self, delivery: WebhookDelivery) -> Any:
        return AttemptSerializer(webhook_log.attempts_of(delivery), many=True).data


class DeliveryQuery(strict.Serializer):
    state = serializers.ChoiceField(choices=WebhookDelivery.State.choices, default="", allow_blank=True)
    cursor = serializers.CharField(default="", allow_blank=True, max_length=200, help_text="`next` of the page before.")
    limit = serializers.IntegerField(default=ROWS_PER_PAGE, min_value=1, max_value=MAX_ROWS_PER_PAGE)


class DeliveryPageSerializer(strict.Serializer):
    rows = DeliverySerializer(many=True)
    next = serializers.CharField(allow_null=True, help_text="Cursor of the next page; null: this is the last.")


@extend_schema(methods=["GET"], operation_id="webhooks_list", responses=WebhookSerializer(many=True))
@extend_schema(
    methods=["POST"], operation_id="webhooks_create", request=WebhookRequest, responses={201: MadeWebhookSerializer}
)
@api_view(["GET", "POST"])
def webhook_list(request: Request, slug: str) -> Response:
    """List the webhooks, or make one. Its secret is in the answer to the creation only. For managers."""
    manager = members.manager_of(request.user, slug)
    if request.method == "GET":
        return Response(WebhookSerializer(webhooks.webhooks_of(manager.project), many=True).data)
    made = webhooks.make(manager, **strict.validated(WebhookRequest(data=request.data)))
    return _with_secret(made, 201)


def _with_secret(made: webhooks.MadeWebhook, status: int) -> Response:
    """Return the answer with the secret, which a second request with the same Idempotency-Key does not get."""
    sentence = _("This request has made a secret already, which was shown once: rotate it to get another.")
    response = Response({**WebhookSerializer(made.webhook).data, "secret": made.secret}, status=status)
    return show_once(response, sentence, id=made.webhook.pk)


@extend_schema(methods=["GET"], operation_id="webhooks_get", responses=WebhookSerializer)
@extend_schema(
    methods=["PATCH"], operation_id="webhooks_change", request=WebhookChangeRequest, responses=WebhookSerializer
)
@extend_schema(methods=["DELETE"], operation_id="webhooks_delete", responses={204: None})
@api_view(["GET", "PATCH", "DELETE"])
def webhook_detail(request: Request, slug: str, webhook_id: int) -> Response:
    """Return, change, disable, enable or delete a webhook. For managers."""
    webhook = _webhook(request, slug, webhook_id)
    if request.method == "GET":
        return Response(WebhookSerializer(webhook).data)
    if request.method == "DELETE":
        webhooks.delete(webhook)
        return Response(status=204)
    changes = strict.validated(WebhookChangeRequest(data=request.data))
    return Response(WebhookSerializer(webhooks.change(webhook, **changes)).data)


@extend_schema(operation_id="webhooks_rotate", request=WebhookRotateRequest, responses=MadeWebhookSerializer)
@api_view(["POST"])
def webhook_rotate(request: Request, slug: str, webhook_id: int) -> Response:
    """Give the webhook a new secret, which is in this answer only. During the overlap both secrets sign."""
    webhook = _webhook(request, slug, webhook_id)
    minutes = strict.validated(WebhookRotateRequest(data=request.data))["overlap_minutes"]
    made = webhooks.rotate(webhook, timedelta(minutes=minutes))
    return _with_secret(made, 200)


@extend_schema(operation_id="webhooks_test", request=None, responses=DeliverySerializer)
@api_view(["POST"], commits=True)
def webhook_test(request: Request, slug: str, webhook_id: int) -> Response:
    """Post a test event now, once, and return its delivery with the answer."""
    return Response(DeliverySerializer(webhooks.send_test(_webhook(request, slug, webhook_id))).data)


@extend_schema(operation_id="webhooks_deliveries", parameters=[DeliveryQuery], responses=DeliveryPageSerializer)
@api_view(["GET"])
def delivery_list(request: Request, slug: str, webhook_id: int) -> Response:
    """List the deliveries of the last 30 days, newest first."""
    values = strict.validated_query(DeliveryQuery, request)
    state, cursor, size = values["state"], values["cursor"], values["limit"]
    page = webhook_log.read(_webhook(request, slug, webhook_id), state=state, cursor=cursor, size=size)
    return Response({"rows": DeliverySerializer(page.deliveries, many=True).data, "next": page.next or None})


@extend_schema(operation_id="webhooks_redeliver", request=None, responses=DeliverySerializer)
@api_view(["POST"])
def delivery_again(request: Request, slug: str, webhook_id: int, delivery_id: int) -> Response:
    """Deliver an event again that was delivered or given up: within seconds, with the whole schedule of attempts."""
    return Response(DeliverySerializer(webhooks.redeliver(_webhook(request, slug, webhook_id), delivery_id)).data)


def _webhook(request: Request, slug: str, webhook_id: int) -> Webhook:
    return webhooks.find_webhook(members.manager_of(request.user, slug).project, webhook_id)
