"""Signatures of the Standard Webhooks specification: HMAC-SHA256 over message id, timestamp and body."""

import base64
import hashlib
import hmac
from datetime import datetime

from django.utils.crypto import salted_hmac

from feedback.models import Webhook

PREFIX = "whsec_"  # of a secret as people see it
PURPOSE = "feedback.webhooks"


def secret_of(salt: str) -> str:
    """Return the signing secret of a salt: 32 bytes in base64 behind "whsec_".

    It is derived with the installation's SECRET_KEY, so neither the database nor a backup of it has it.
    """
    return PREFIX + base64.b64encode(_key(salt)).decode()


def headers_of(webhook: Webhook, message_id: str, body: bytes, now: datetime) -> dict[str, str]:
    """Return the three headers. For some time after a rotation both secrets sign."""
    salts = [webhook.salt]
    if webhook.former_salt and webhook.former_until is not None and webhook.former_until > now:
        salts.append(webhook.former_salt)
    timestamp = str(int(now.timestamp()))
    signatures = [signature(_key(salt), message_id, timestamp, body) for salt in salts]
    return {
        "webhook-id": message_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": " ".join(signatures),
    }


def signature(key: bytes, message_id: str, timestamp: str, body: bytes) -> str:
    signed = hmac.new(key, b".".join([message_id.encode(), timestamp.encode(), body]), hashlib.sha256)
    return "v1," + base64.b64encode(signed.digest()).decode()


def _key(salt: str) -> bytes:
    return salted_hmac(PURPOSE, salt, algorithm="sha256").digest()
