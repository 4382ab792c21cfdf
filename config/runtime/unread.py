"""Request bodies that the application does not read, such as an upload with a wrong token."""

from collections.abc import Callable, Iterable
from typing import IO, Any

from django.conf import settings

CHUNK_BYTES = 64 * 1024

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class CountedBody:
    """File object of a request's body that counts the bytes that have not been read (`left`)."""

    def __init__(self, body: IO[bytes], length: int) -> None:
        self.body = body
        self.left = length

    def _count(self, data: bytes) -> bytes:
        self.left = self.left - len(data) if data else 0
        return data

    def read(self, size: int = -1) -> bytes:
        return b"" if size == 0 else self._count(self.body.read(size))

    def readline(self, size: int = -1) -> bytes:
        return b"" if size == 0 else self._count(self.body.readline(size))

    def __iter__(self) -> "CountedBody":
        return self

    def __next__(self) -> bytes:
        if line := self.readline():
            return line
        raise StopIteration


def drained(application: Application) -> Application:
    """Wrap a WSGI application: read the rest of a request's body before the response begins.

    gunicorn closes a connection with more than 64 KiB unread, even after it promised to keep it open. Bodies above the
    limit are not read; then gunicorn closes the connection.
    """

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        length = environ.get("CONTENT_LENGTH") or "0"
        if not length.isdigit() or length == "0":
            return application(environ, start_response)
        body = environ["wsgi.input"] = CountedBody(environ["wsgi.input"], int(length))

        def start(status: str, headers: list[tuple[str, str]], *more: Any) -> Any:
            is_known = "accord.known" in environ  # set by feedback.web.body_limits
            limit = settings.DATA_UPLOAD_MAX_MEMORY_SIZE if is_known else settings.MAX_ANONYMOUS_BODY_SIZE
            if body.left <= limit:
                while body.left > 0:
                    body.read(min(body.left, CHUNK_BYTES))
            return start_response(status, headers, *more)

        return application(environ, start)

    return answer
