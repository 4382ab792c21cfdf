"""`Idempotency-Key`: a POST that may be sent again without being carried out again.

As in the IETF draft "The Idempotency-Key HTTP Header Field": the same key with the same request is answered as the
first time, the same key with another request is refused with 422.
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
from feedback.models import KeptAnswer

KEPT = timedelta(days=7)
View = Callable[..., Response]


class KeyReused(AccordError):
    """The key was sent with another request before."""

    status = 422
    code = "idempotency_key_reused"


def idempotent(view: View) -> View:
    """Let a view's POST take an `Idempotency-Key`. Its writes and the answer are one transaction.

    Two requests with one key take turns: the second waits for the first one's transaction, and gets its answer. What is
    refused is not kept, so it can be corrected and sent again.
    """

    @wraps(view)
    def answer(request: Request, *args: Any, **kwargs: Any) -> Response:
        key = request.headers.get("Idempotency-Key")
        if key is None or request.method != "POST":
            return view(request, *args, **kwargs)
        key = validation.filled_text(key, "Idempotency-Key", longest=200)
        # The body in memory: its digest is asked for before it is read.
        digest = hashlib.sha256(request.get_full_path().encode() + b"\n" + request._request.body).hexdigest()
        with transaction.atomic():
            kept, is_new = _keep(request, key, digest)
            if kept.request_digest != digest:
                raise KeyReused(_("This Idempotency-Key was used for a different request: send a new key."))
            if not is_new:
                return Response(kept.answer, status=kept.status, headers={"Idempotency-Replayed": "true"})
            response = view(request, *args, **kwargs)
            kept.answer, kept.status = response.data, response.status_code
            kept.save(update_fields=["answer", "status"])
            return response

    return answer


def _keep(request: Request, key: str, digest: str) -> tuple[KeptAnswer, bool]:
    """Return the row of this key, and whether it is new. Waits while another request with the key is carried out."""
    given = {"user": request.user, "key": key}
    try:
        with transaction.atomic():
            return KeptAnswer.objects.create(**given, request_digest=digest), True
    except IntegrityError:
        return KeptAnswer.objects.get(**given), False


def forget() -> int:
    """Forget answers older than a week. Returns how many."""
    deleted, _by_table = KeptAnswer.objects.filter(created_at__lt=timezone.now() - KEPT).delete()
    return deleted
