"""Request bodies with `Transfer-Encoding: chunked`: Django needs a Content-Length and would read 0 bytes."""

import json
import tempfile
from collections.abc import Callable, Iterable
from typing import Any

from django.conf import settings
from django.core.handlers.wsgi import WSGIRequest
from django.db import close_old_connections

MAX_IN_MEMORY = 1024 * 1024  # bytes; a longer body is kept in a temporary file
CHUNK_BYTES = 64 * 1024
# As `feedback.problems` writes it, which is loaded after this module.
SENTENCE = "The body is too large for this address: send it in several parts."
PROBLEM = {"type": "/api/problems#too_large", "title": "Too large", "status": 413, "code": "too_large"}
REFUSAL = json.dumps(PROBLEM | {"detail": SENTENCE, "message": SENTENCE}).encode()

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def with_length(application: Application) -> Application:
    """Wrap a WSGI application: read a chunked body to its end and set its Content-Length.

    The server must end `wsgi.input` where the body ends, as gunicorn does. Bodies above the limit are answered with
    413.
    """

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if "chunked" not in environ.get("HTTP_TRANSFER_ENCODING", "").lower() or "CONTENT_LENGTH" in environ:
            return application(environ, start_response)
        limit = settings.MAX_ANONYMOUS_BODY_SIZE
        with tempfile.SpooledTemporaryFile(MAX_IN_MEMORY) as body:
            while piece := environ["wsgi.input"].read(CHUNK_BYTES):
                body.write(piece)
                if body.tell() > limit == settings.MAX_ANONYMOUS_BODY_SIZE and _is_known(environ):
                    limit = settings.DATA_UPLOAD_MAX_MEMORY_SIZE  # the application checks its own limits
                if body.tell() > limit:
                    headers = [("Content-Type", "application/problem+json"), ("Content-Length", str(len(REFUSAL)))]
                    start_response("413 Content Too Large", [*headers, ("Connection", "close")])
                    return [REFUSAL]
            environ["CONTENT_LENGTH"] = str(body.tell())
            body.seek(0)
            environ["wsgi.input"] = body
            return application(environ, start_response)

    return answer


def _is_known(environ: dict[str, Any]) -> bool:
    """Return whether the request has the token or session of an account."""
    if "HTTP_AUTHORIZATION" not in environ and settings.SESSION_COOKIE_NAME not in environ.get("HTTP_COOKIE", ""):
        return False
    from feedback.web.body_limits import find_sender  # models are loaded after this module

    close_old_connections()  # Django does so when a request begins, which is later
    return find_sender(WSGIRequest(environ)) is not None
