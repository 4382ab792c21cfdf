"""Request bodies that an application answers without reading, such as an upload with a wrong token."""

from collections.abc import Callable, Iterable
from typing import IO, Any

from django.conf import settings

PIECE = 64 * 1024

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class CountedBody:
    """A request's body, which knows how many of its bytes have not been read."""

    def __init__(self, body: IO[bytes], length: int) -> None:
        self.body = body
        self.left = length

    def _counted(self, piece: bytes) -> bytes:
        self.left = self.left - len(piece) if piece else 0
        return piece

    def read(self, size: int = -1) -> bytes:
        return b"" if size == 0 else self._counted(self.body.read(size))

    def readline(self, size: int = -1) -> bytes:
        return b"" if size == 0 else self._counted(self.body.readline(size))

    def __iter__(self) -> "CountedBody":
        return self

    def __next__(self) -> bytes:
        if line := self.readline():
            return line
        raise StopIteration


def drained(application: Application) -> Application:
    """Wrap a WSGI application: what it has not read of a body is read before its answer begins.

    gunicorn closes a connection with more than 64 KiB unread, after an answer that has promised to keep it open. Bodies
    above the limit are left to that.
    """

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        length = environ.get("CONTENT_LENGTH") or "0"
        if not length.isdigit() or length == "0":
            return application(environ, start_response)
        body = environ["wsgi.input"] = CountedBody(environ["wsgi.input"], int(length))

        def start(status: str, headers: list[tuple[str, str]], *more: Any) -> Any:
            known = "accord.known" in environ  # as feedback.web.body_limits found out
            if body.left <= (settings.DATA_UPLOAD_MAX_MEMORY_SIZE if known else settings.BODY_OF_NOBODY):
                while body.left > 0:
                    body.read(min(body.left, PIECE))
            return start_response(status, headers, *more)

        return application(environ, start)

    return answer
