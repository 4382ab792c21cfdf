"""Responses to requests with an `Idempotency-Key`: a request that is sent again gets the stored one."""

from django.db import models

from feedback.models.people import User


class IdempotentResponse(models.Model):
    """The response to a POST with an `Idempotency-Key`, written in the transaction that executed the request."""

    user = models.ForeignKey(User, models.CASCADE, related_name="+", db_index=False)
    key = models.CharField(max_length=200)
    request_digest = models.CharField(max_length=64, help_text="SHA-256 of the address and the body.")
    status = models.PositiveSmallIntegerField(default=0)
    body = models.JSONField(default=dict)
    created_at = models.DateTimeField(auto_now_add=True, db_index=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["user", "key"], name="idempotency_key_once")]

    def __str__(self) -> str:
        return self.key
