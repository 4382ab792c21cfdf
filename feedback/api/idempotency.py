"""Header `Idempotency-Key`: a POST that is sent again is executed once.

Source: the IETF draft "The Idempotency-Key HTTP Header Field". The same key with the same request gets the first
response again; the same key with another request is refused with 422. All POST addresses of the API have it.
"""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import wraps
from typing import Any

from django.db import IntegrityError, connection, transaction
from django.utils import timezone
from django.utils.translation import gettext as _
from rest_framework.request import Request
from rest_framework.response import Response

from feedback import validation
from feedback.errors import AccordError, Conflict
from feedback.models import IdempotentResponse
from feedback.problems import MEDIA_TYPE, problem_of

RETENTION = timedelta(days=7)
LOCK_CLASS = 0x1DE3  # of the advisory locks on keys
View = Callable[..., Response]


class KeyReused(AccordError):
    """A key that came with another request before."""

    status = 422
    code = "idempotency_key_reused"


class ShownOnce(Conflict):
    """A request that was executed, and whose answer had a secret that is not stored."""

    code = "shown_once"


def idempotent(view: View, *, commits: bool = False) -> View:
    """Make a view's POST accept an `Idempotency-Key`.

    The view's writes and its stored response are one transaction. A second request with the same key waits for the
    first one, and gets its response. An error is not stored, so the request can be corrected and sent again with the
    same key.

    commits: the view commits by itself, and its response is stored afterwards, under an advisory lock. If the process
    dies in between, the second request is executed. Such views have a protection of their own: a ranking its
    `idempotency_key`, a decision the state that it changes, a file the rows that exist.
    """

    @wraps(view)
    def replay_or_execute(request: Request, *args: Any, **kwargs: Any) -> Response:
        key = request.headers.get("Idempotency-Key")
        if key is None or request.method != "POST":
            return view(request, *args, **kwargs)
        key = validation.filled_text(key, "Idempotency-Key", max_length=200)
        # `body` reads the whole body into memory. A parser that had read the stream before would leave nothing to hash.
        digest = hashlib.sha256(request.get_full_path().encode() + b"\n" + request._request.body).hexdigest()
        execute = _execute_and_store if commits else _execute_in_one_transaction
        return execute(request, key, digest, lambda: view(request, *args, **kwargs))

    return replay_or_execute


def show_once(response: Response, sentence: str, **details: Any) -> Response:
    """Mark a response with a secret: a second request gets the sentence, as an error."""
    response.replay = ShownOnce(sentence, **details)
    return response


def delete_expired() -> int:
    """Delete stored responses older than RETENTION, and return their number."""
    deleted, _by_table = IdempotentResponse.objects.filter(created_at__lt=timezone.now() - RETENTION).delete()
    return deleted


def _execute_in_one_transaction(request: Request, key: str, digest: str, execute: Callable[[], Response]) -> Response:
    with transaction.atomic():
        stored, is_new = _store(request, key, digest)
        if not is_new:
            return _replay(stored, digest)
        response = execute()
        stored.body, stored.status = _body_to_keep(response)
        stored.save(update_fields=["body", "status"])
        return response


def _execute_and_store(request: Request, key: str, digest: str, execute: Callable[[], Response]) -> Response:
    with _turn(request, key):
        stored = IdempotentResponse.objects.filter(user=request.user, key=key).first()
        if stored is not None:
            return _replay(stored, digest)
        response = execute()
        body, status = _body_to_keep(response)
        IdempotentResponse.objects.create(user=request.user, key=key, request_digest=digest, body=body, status=status)
        return response


def _store(request: Request, key: str, digest: str) -> tuple[IdempotentResponse, bool]:
    """Return the row of this key, and whether it is new. Waits while another request with the same key runs."""
    owner = {"user": request.user, "key": key}
    try:
        with transaction.atomic():
            return IdempotentResponse.objects.create(**owner, request_digest=digest), True
    except IntegrityError:
        return IdempotentResponse.objects.get(**owner), False


@contextmanager
def _turn(request: Request, key: str) -> Iterator[None]:
    """Hold the lock of a user's key. PostgreSQL frees it when the connection ends."""
    digest = hashlib.sha256(f"{request.user.pk} {key}".encode()).digest()
    lock = [LOCK_CLASS, int.from_bytes(digest[:4], signed=True)]
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(%s, %s)", lock)
    try:
        yield
    finally:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_unlock(%s, %s)", lock)


def _replay(stored: IdempotentResponse, digest: str) -> Response:
    if stored.request_digest != digest:
        raise KeyReused(_("This Idempotency-Key was used for a different request: send a new key."))
    media_type = MEDIA_TYPE if stored.status >= 400 else None
    return Response(stored.body, stored.status, headers={"Idempotency-Replayed": "true"}, content_type=media_type)


def _body_to_keep(response: Response) -> tuple[Any, int]:
    refusal = getattr(response, "replay", None)
    return (response.data, response.status_code) if refusal is None else (problem_of(refusal), refusal.status)
