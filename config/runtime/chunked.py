"""Request bodies sent with `Transfer-Encoding: chunked`, whose length Django does not know and takes for 0."""

import tempfile
from collections.abc import Callable, Iterable
from typing import Any

from django.conf import settings
from django.core.handlers.wsgi import WSGIRequest
from django.db import close_old_connections

IN_MEMORY = 1024 * 1024  # bytes; a longer body waits on disk
PIECE = 64 * 1024
REFUSAL = b'{"code": "too_large", "message": "The body is too large for this address: send it in several parts."}'

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def with_length(application: Application) -> Application:
    """Wrap a WSGI application: a chunked body is read to its end, and handed on with its length.

    The server must end `wsgi.input` where the body ends, as gunicorn does. Bodies above the limit are answered 413.
    """

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if "chunked" not in environ.get("HTTP_TRANSFER_ENCODING", "").lower() or "CONTENT_LENGTH" in environ:
            return application(environ, start_response)
        most = settings.BODY_OF_NOBODY
        with tempfile.SpooledTemporaryFile(IN_MEMORY) as body:
            while piece := environ["wsgi.input"].read(PIECE):
                body.write(piece)
                if body.tell() > most == settings.BODY_OF_NOBODY and _is_known(environ):
                    most = settings.DATA_UPLOAD_MAX_MEMORY_SIZE  # the application's limits say whether it is taken
                if body.tell() > most:
                    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(REFUSAL)))]
                    start_response("413 Content Too Large", [*headers, ("Connection", "close")])
                    return [REFUSAL]
            environ["CONTENT_LENGTH"] = str(body.tell())
            body.seek(0)
            environ["wsgi.input"] = body
            return application(environ, start_response)

    return answer


def _is_known(environ: dict[str, Any]) -> bool:
    """Whether the request's token or session is somebody's."""
    if "HTTP_AUTHORIZATION" not in environ and settings.SESSION_COOKIE_NAME not in environ.get("HTTP_COOKIE", ""):
        return False
    from feedback.web.body_limits import find_sender  # models are loaded after this module

    close_old_connections()  # as where a request begins, which this comes before
    return find_sender(WSGIRequest(environ)) is not None
