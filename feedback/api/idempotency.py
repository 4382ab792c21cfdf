"""Header `Idempotency-Key`: a POST that is sent again is executed once.

Source: the IETF draft "The Idempotency-Key HTTP Header Field". The same key with the same request gets the first
response again; the same key with another request is refused with 422.
"""

import hashlib
from collections.abc import Callable
from datetime import timedelta
from functools import wraps
from typing import Any

from django.db import IntegrityError, transaction
from django.utils import timezone
from django.utils.translation import gettext as _
from rest_framework.request import Request
from rest_framework.response import Response

from feedback import validation
from feedback.errors import AccordError
from feedback.models import IdempotentResponse

RETENTION = timedelta(days=7)
View = Callable[..., Response]


class KeyReused(AccordError):
    """Raised when a key comes with another request than before."""

    status = 422
    code = "idempotency_key_reused"


def idempotent(view: View) -> View:
    """Make a view's POST accept an `Idempotency-Key`. The view's writes and its stored response are one transaction.

    A second request with the same key waits for the transaction of the first one, and gets its response. An error is
    not stored, so the request can be corrected and sent again with the same key.
    """

    @wraps(view)
    def replay_or_execute(request: Request, *args: Any, **kwargs: Any) -> Response:
        key = request.headers.get("Idempotency-Key")
        if key is None or request.method != "POST":
            return view(request, *args, **kwargs)
        key = validation.filled_text(key, "Idempotency-Key", max_length=200)
        # `body` reads the whole body into memory. A parser that had read the stream before would leave nothing to hash.
        digest = hashlib.sha256(request.get_full_path().encode() + b"\n" + request._request.body).hexdigest()
        with transaction.atomic():
            stored, is_new = _store(request, key, digest)
            if stored.request_digest != digest:
                raise KeyReused(_("This Idempotency-Key was used for a different request: send a new key."))
            if not is_new:
                return Response(stored.body, status=stored.status, headers={"Idempotency-Replayed": "true"})
            response = view(request, *args, **kwargs)
            stored.body, stored.status = response.data, response.status_code
            stored.save(update_fields=["body", "status"])
            return response

    return replay_or_execute


def _store(request: Request, key: str, digest: str) -> tuple[IdempotentResponse, bool]:
    """Return the row of this key, and whether it is new. Waits while another request with the same key runs."""
    owner = {"user": request.user, "key": key}
    try:
        with transaction.atomic():
            return IdempotentResponse.objects.create(**owner, request_digest=digest), True
    except IntegrityError:
        return IdempotentResponse.objects.get(**owner), False


def delete_expired() -> int:
    """Delete stored responses older than RETENTION, and return their number."""
    deleted, _by_table = IdempotentResponse.objects.filter(created_at__lt=timezone.now() - RETENTION).delete()
    return deleted
