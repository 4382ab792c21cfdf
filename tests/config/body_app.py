"""WSGI application for real web workers: it answers with the length and the hash of the request's body."""

import hashlib

from config.runtime.chunked import with_length
from config.runtime.unread import drained


def whole_body(environ, start_response):
    if environ["PATH_INFO"] == "/unread":
        start_response("401 Unauthorized", [("Content-Type", "text/plain"), ("Content-Length", "2")])
        return [b"no"]
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{len(body)} {hashlib.sha256(body).hexdigest()}".encode()]


application = drained(with_length(whole_body))
