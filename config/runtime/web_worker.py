"""gunicorn's gthread worker with buffered requests and limited accepting. Plain HTTP/1.1 only.

gthread hands a connection to a thread as soon as it has sent a byte, and the thread then waits without a limit for the
rest. Here the event loop reads the request's head and a small body, and a thread gets the request when it is complete.

Measured with 12 browsers and 32 clients that send a byte now and then, 2 workers of 4 threads, responses of 50 ms,
without a proxy: p95 70 ms, with gthread over 10 s (training/LOG.md, 2026-11-28). Behind nginx, or without slow clients,
both are equally fast.
"""

import re
import selectors
import socket
import struct
import time
from collections import deque
from concurrent.futures import Future
from contextlib import suppress
from functools import partial

from gunicorn.http.unreader import SocketUnreader
from gunicorn.workers.gthread import TConn, ThreadWorker

ARRIVAL_SECONDS = 30  # limit for the whole head and a body of up to SMALL_BODY
HEAD_LIMIT = 64 * 1024  # bytes
SMALL_BODY = 64 * 1024  # bytes: the event loop reads bodies up to this size, a thread reads larger ones
GAP_SECONDS = 10  # limit between two parts of a large body, and for a client to read a part of the response
LINGER_SECONDS = 2  # limit for a client to read the last response and close
MIN_RATE = 16 * 1024  # bytes per second of a large body, after ARRIVAL_SECONDS

INCOMPLETE, COMPLETE, LARGE, TOO_LARGE = "incomplete", "complete", "large", "too large"
REQUEST_TIMEOUT = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
HEAD_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class TimedUnreader(SocketUnreader):
    """The bytes of a connection: the buffered ones, then the socket's, with a time limit for each part.

    Raises TimeoutError if a part is late or the body as a whole is slower than MIN_RATE.
    """

    def __init__(self, connection: socket.socket) -> None:
        super().__init__(connection)
        self.start_request()

    def start_request(self) -> None:
        self.waited, self.received = 0.0, 0

    def chunk(self, size_hint: int | None = None) -> bytes:
        timeout, start = self.sock.gettimeout(), time.monotonic()
        self.sock.settimeout(min(timeout or GAP_SECONDS, GAP_SECONDS))
        try:
            data: bytes = super().chunk(size_hint)
        finally:
            self.sock.settimeout(timeout)
        # Only the waiting time counts, not what the application does between two parts.
        self.waited += time.monotonic() - start
        self.received += len(data)
        if self.waited > ARRIVAL_SECONDS + self.received / MIN_RATE:
            raise TimeoutError(f"the request's body arrives more slowly than {MIN_RATE} bytes a second")
        return data


def progress(received: bytes) -> str:
    """Return the state of a request: INCOMPLETE, COMPLETE, LARGE (a thread reads the body) or TOO_LARGE (the head)."""
    end = received.find(b"\r\n\r\n")
    if end < 0 or end > HEAD_LIMIT:
        return TOO_LARGE if len(received) > HEAD_LIMIT else INCOMPLETE
    head = received[:end].lower()
    lengths = re.findall(rb"\r\ncontent-length:[ \t]*(\d{1,18})[ \t]*(?=\r\n|$)", head)
    if b"\r\ntransfer-encoding" in head or b"\r\nexpect" in head or head.count(b"content-length") != len(lengths):
        return LARGE  # the length is unknown, or the client waits for "100 Continue" before it sends the body
    missing = max(map(int, lengths), default=0) - (len(received) - end - 4)
    if missing <= 0:
        return COMPLETE
    return LARGE if max(map(int, lengths)) > SMALL_BODY else INCOMPLETE


class BufferedThreadWorker(ThreadWorker):
    """gthread worker that gives threads to complete requests only, and does not accept while all threads are busy.

    A browser keeps its connection, and the worker that accepted it answers all its requests. A worker that accepts
    without limit can end up with all browsers while another one idles. At most half of the threads read large bodies,
    so that slow uploads leave the other half to other requests.
    """

    def init_process(self) -> None:
        self.large_bodies = 0  # that threads are reading
        self.large_waiting: deque[TConn] = deque()
        # Linux then reports a connection only when its first bytes arrive, so that it counts as work at once.
        for listener in self.sockets:
            if hasattr(socket, "TCP_DEFER_ACCEPT") and listener.FAMILY != socket.AF_UNIX:
                listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, ARRIVAL_SECONDS)
        super().init_process()

    @property
    def worker_connections(self) -> int:
        """Limit of connections above which none is accepted; the loop in `run` reads it in each iteration."""
        idle = len(self.keepalived_conns) + len(self.pending_conns) + len(self.large_waiting)
        return self.cfg.worker_connections if self.nr_conns - idle < self.cfg.threads else 0

    @worker_connections.setter
    def worker_connections(self, configured: int) -> None:
        """Ignore the value that gunicorn sets: the property reads it from the configuration."""

    def enqueue_req(self, conn: TConn) -> None:
        """Read the next request of a new or kept connection in the event loop."""
        if not conn.initialized:
            conn.init()
            conn.parser.unreader = TimedUnreader(conn.sock)
            # Limits writing in the kernel: gunicorn makes the socket blocking before it writes the response.
            conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", GAP_SECONDS, 0))
        conn.sock.setblocking(False)
        conn.is_large = conn.lingers = False
        conn.received = bytearray(conn.parser.unreader.take_buffered())
        conn.timeout = time.monotonic() + ARRIVAL_SECONDS
        self.pending_conns.append(conn)
        self.poller.register(conn.sock, selectors.EVENT_READ, partial(self.on_pending_socket_readable, conn))
        if conn.received:
            self._check_progress(conn)
        else:
            self.on_pending_socket_readable(conn, conn.sock)

    def on_pending_socket_readable(self, conn: TConn, client: socket.socket) -> None:
        try:
            data = client.recv(SMALL_BODY)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._drop(conn)
            return
        if conn.lingers:
            return
        conn.received += data
        self._check_progress(conn)

    def _check_progress(self, conn: TConn) -> None:
        while conn.received[:2] == b"\r\n":  # empty lines before a request: RFC 9112, section 2.2
            del conn.received[:2]
        state = progress(bytes(conn.received))
        if state == TOO_LARGE:
            self._drop(conn, HEAD_TOO_LARGE)
        elif state in (COMPLETE, LARGE):
            self._leave_loop(conn)
            conn.is_large = state == LARGE
            conn.data_ready = True
            conn.parser.unreader.unread(bytes(conn.received))
            conn.parser.unreader.start_request()
            if conn.is_large:
                self.large_waiting.append(conn)
                self._start_large()
            else:
                super().enqueue_req(conn)

    def _start_large(self) -> None:
        while self.large_waiting and self.large_bodies < max(1, self.cfg.threads // 2):
            self.large_bodies += 1
            super().enqueue_req(self.large_waiting.popleft())

    def finish_request(self, conn: TConn, fs: "Future[object]") -> None:
        if conn.is_large:
            self.large_bodies -= 1
            self._start_large()
        if not fs.cancelled() and fs.exception() is None and not fs.result():
            self._linger(conn)
        else:
            super().finish_request(conn, fs)

    def _linger(self, conn: TConn) -> None:
        """Close the connection once the client has read the response; gunicorn's way would block the event loop."""
        conn.sock.setblocking(False)
        conn.received, conn.lingers = bytearray(), True
        conn.timeout = time.monotonic() + LINGER_SECONDS
        self.pending_conns.append(conn)
        try:
            conn.sock.shutdown(socket.SHUT_WR)
            self.poller.register(conn.sock, selectors.EVENT_READ, partial(self.on_pending_socket_readable, conn))
        except (OSError, ValueError):
            self._drop(conn)

    def _leave_loop(self, conn: TConn) -> None:
        self.pending_conns.remove(conn)
        with suppress(OSError, KeyError, ValueError):
            self.poller.unregister(conn.sock)

    def _drop(self, conn: TConn, response: bytes = b"") -> None:
        self._leave_loop(conn)
        self.nr_conns -= 1
        with suppress(OSError):
            conn.sock.send(response)
        conn.close()

    def murder_pending(self) -> None:
        """Close connections whose request is incomplete after the time limit."""
        now = time.monotonic()
        for conn in [conn for conn in self.pending_conns if conn.timeout <= now]:
            self._drop(conn, REQUEST_TIMEOUT if conn.received else b"")

    def _cap_keepalive(self, deadline: float) -> None:
        """On shutdown, apply gunicorn's deadline for kept connections to pending ones too.

        Close connections with a large body that no thread has begun to read.
        """
        super()._cap_keepalive(deadline)
        while self.large_waiting:
            self.nr_conns -= 1
            self.large_waiting.popleft().close()
        for conn in self.pending_conns:
            conn.timeout = min(conn.timeout, deadline)
