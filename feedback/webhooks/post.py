"""One POST to a checked address, with a limit for the whole of it. Redirects are not followed, proxies not used."""

import http.client
import socket
import ssl
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from threading import Event, Timer
from time import monotonic

from feedback.errors import Invalid
from feedback.webhooks.addresses import Target, resolve

CONNECT_SECONDS = 5.0
MAX_SECONDS = 15.0  # of an attempt
MAX_ANSWER = 1000  # bytes that are kept


@dataclass(frozen=True)
class Answer:
    """The outcome of an attempt: the answer of the address, or the reason why there is none (status None)."""

    status: int | None
    text: str
    seconds: float

    @property
    def is_success(self) -> bool:
        return self.status is not None and 200 <= self.status < 300


class _Plain(http.client.HTTPConnection):
    """Connection to the checked address of a target, not to its name."""

    target: Target

    def connect(self) -> None:
        self.sock = socket.create_connection((self.target.address, self.target.port), CONNECT_SECONDS)
        self.sock.settimeout(MAX_SECONDS)


class _Encrypted(_Plain):
    def connect(self) -> None:
        super().connect()
        self.sock = _tls().wrap_socket(self.sock, server_hostname=self.target.host)


@cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()


def post(url: str, headers: dict[str, str], body: bytes) -> Answer:
    """Post the body. Whatever goes wrong is in the answer: this runs in a thread."""
    begin = monotonic()
    try:
        status, text = _post(resolve(url), headers, body)
    except Invalid as refusal:
        status, text = None, refusal.message
    except TimeoutError:
        status, text = None, f"no answer within {MAX_SECONDS:.0f} s"
    except (OSError, http.client.HTTPException, ValueError) as error:
        late = monotonic() - begin >= MAX_SECONDS
        status, text = None, f"no answer within {MAX_SECONDS:.0f} s" if late else _reason(error)
    return Answer(status, text.replace("\0", ""), round(monotonic() - begin, 3))


def _post(target: Target, headers: dict[str, str], body: bytes) -> tuple[int, str]:
    connection = (_Encrypted if target.is_tls else _Plain)(target.host, target.port)
    connection.target = target
    is_late = Event()
    # The timeouts of sockets are for each packet: an answer of one byte a second would never end.
    timer = Timer(MAX_SECONDS, lambda: _shut(connection, is_late))
    timer.start()
    try:
        connection.request("POST", target.path, body, headers)
        response = connection.getresponse()
        text = response.read(MAX_ANSWER).decode("utf-8", "replace")
        if is_late.is_set():  # headers that were cut off can look like a whole answer
            raise TimeoutError
        return response.status, text
    finally:
        timer.cancel()
        connection.close()


def _shut(connection: http.client.HTTPConnection, is_late: Event) -> None:
    is_late.set()
    if (sock := connection.sock) is not None:
        with suppress(OSError):  # it may have ended by itself
            sock.shutdown(socket.SHUT_RDWR)


def _reason(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__)[:MAX_ANSWER]
