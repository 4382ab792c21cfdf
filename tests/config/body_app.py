"""A WSGI application for real web workers: it says how long the body is that it was given, and what it holds."""

import hashlib

from config.chunked import with_length


def whole_body(environ, start_response):
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{len(body)} {hashlib.sha256(body).hexdigest()}".encode()]


application = with_length(whole_body)
