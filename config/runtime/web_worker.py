"""gunicorn's gthread worker, with a queue for requests that have not arrived yet. Plain HTTP/1.1 only.

gunicorn gives a thread to a connection as soon as it has sent a byte, and the thread then waits without a limit for the
rest. Here the event loop reads the request's head and a small body, and a thread gets the request when it is whole.
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

ARRIVAL_SECONDS = 30  # for the whole head and a body of up to SMALL_BODY, however it is spread
HEAD_LIMIT = 64 * 1024  # bytes
SMALL_BODY = 64 * 1024  # bytes: bodies up to this wait in the event loop, larger ones are read by a thread
GAP_SECONDS = 10  # between two pieces of a large body, or of an answer that the client does not read
LINGER_SECONDS = 2  # that a client gets to read the last answer, and to close
LEAST_RATE = 16 * 1024  # bytes a second of a large body, after ARRIVAL_SECONDS

ARRIVING, WHOLE, LARGE, TOO_LARGE = "arriving", "whole", "large", "too large"
NO_TIME = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
NO_ROOM = b"HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class Arriving(SocketUnreader):
    """The bytes of a connection: those that have arrived, then the socket's, with a deadline for each piece.

    Raises TimeoutError when a piece is late, or when the body as a whole is slower than LEAST_RATE.
    """

    def __init__(self, connection: socket.socket) -> None:
        super().__init__(connection)
        self.start_request()

    def start_request(self) -> None:
        self.waited, self.received = 0.0, 0

    def chunk(self, size_hint: int | None = None) -> bytes:
        allowed, began = self.sock.gettimeout(), time.monotonic()
        self.sock.settimeout(min(allowed or GAP_SECONDS, GAP_SECONDS))
        try:
            piece: bytes = super().chunk(size_hint)
        finally:
            self.sock.settimeout(allowed)
        # Only the time that we wait counts: the application may take its time between two pieces.
        self.waited += time.monotonic() - began
        self.received += len(piece)
        if self.waited > ARRIVAL_SECONDS + self.received / LEAST_RATE:
            raise TimeoutError(f"the request's body arrives more slowly than {LEAST_RATE} bytes a second")
        return piece


def progress(received: bytes) -> str:
    """How much of a request is there: ARRIVING, WHOLE, LARGE (its body is for a thread to read), or TOO_LARGE."""
    end = received.find(b"\r\n\r\n")
    if end < 0 or end > HEAD_LIMIT:
        return TOO_LARGE if len(received) > HEAD_LIMIT else ARRIVING
    head = received[:end].lower()
    lengths = re.findall(rb"\r\ncontent-length:[ \t]*(\d{1,18})[ \t]*(?=\r\n|$)", head)
    if b"\r\ntransfer-encoding" in head or b"\r\nexpect" in head or head.count(b"content-length") != len(lengths):
        return LARGE  # its length is not known, or the client waits for a word before it sends the body
    missing = max(map(int, lengths), default=0) - (len(received) - end - 4)
    if missing <= 0:
        return WHOLE
    return LARGE if max(map(int, lengths)) > SMALL_BODY else ARRIVING


class BufferedThreadWorker(ThreadWorker):
    """A worker that gives a thread to whole requests, and stops accepting connections while all threads are busy.

    Browsers keep a connection for as long as they use it, so the worker that accepts one answers it from then on: one
    that takes whatever comes can end up with everybody, while another one idles. Large bodies are read by at most half
    of the threads, so that slow uploads leave the other half to everybody else.
    """

    def init_process(self) -> None:
        self.large_bodies = 0  # being read by threads
        self.large_waiting: deque[TConn] = deque()
        # Linux hands a connection over with its first request, so that one about to ask counts as work at once.
        for listener in self.sockets:
            if hasattr(socket, "TCP_DEFER_ACCEPT") and listener.FAMILY != socket.AF_UNIX:
                listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, ARRIVAL_SECONDS)
        super().init_process()

    @property
    def worker_connections(self) -> int:
        """How many connections there may be before no more are accepted: the loop of `run` asks each time around."""
        idle = len(self.keepalived_conns) + len(self.pending_conns) + len(self.large_waiting)
        return self.cfg.worker_connections if self.nr_conns - idle < self.cfg.threads else 0

    @worker_connections.setter
    def worker_connections(self, configured: int) -> None:
        """What gunicorn sets is read from its configuration."""

    def enqueue_req(self, conn: TConn) -> None:
        """Wait for a request on a connection, new or kept: the event loop reads it as it comes."""
        if not conn.initialized:
            conn.init()
            conn.parser.unreader = Arriving(conn.sock)
            # The kernel's own limit, for answers: gunicorn makes the socket blocking again before it writes.
            conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", GAP_SECONDS, 0))
        conn.sock.setblocking(False)
        conn.is_large = conn.lingers = False
        conn.received = bytearray(conn.parser.unreader.take_buffered())
        conn.timeout = time.monotonic() + ARRIVAL_SECONDS
        self.pending_conns.append(conn)
        self.poller.register(conn.sock, selectors.EVENT_READ, partial(self.on_pending_socket_readable, conn))
        if conn.received:
            self._look_at(conn)
        else:
            self.on_pending_socket_readable(conn, conn.sock)

    def on_pending_socket_readable(self, conn: TConn, client: socket.socket) -> None:
        try:
            piece = client.recv(SMALL_BODY)
        except BlockingIOError:
            return
        except OSError:
            piece = b""
        if not piece:
            self._drop(conn)
            return
        if conn.lingers:
            return
        conn.received += piece
        self._look_at(conn)

    def _look_at(self, conn: TConn) -> None:
        while conn.received[:2] == b"\r\n":  # empty lines before a request: RFC 9112, section 2.2
            del conn.received[:2]
        state = progress(bytes(conn.received))
        if state == TOO_LARGE:
            self._drop(conn, NO_ROOM)
        elif state in (WHOLE, LARGE):
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
        """Close the connection once the client has read the answer: gunicorn would wait for that in the event loop."""
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

    def _drop(self, conn: TConn, answer: bytes = b"") -> None:
        self._leave_loop(conn)
        self.nr_conns -= 1
        with suppress(OSError):
            conn.sock.send(answer)
        conn.close()

    def murder_pending(self) -> None:
        """Close connections whose request has not arrived in time."""
        now = time.monotonic()
        for conn in [conn for conn in self.pending_conns if conn.timeout <= now]:
            self._drop(conn, NO_TIME if conn.received else b"")

    def _cap_keepalive(self, deadline: float) -> None:
        """When the worker stops, who has sent no request is waited for no longer than who had an answer.

        Large bodies that no thread has begun to read are not read any more.
        """
        super()._cap_keepalive(deadline)
        while self.large_waiting:
            self.nr_conns -= 1
            self.large_waiting.popleft().close()
        for conn in self.pending_conns:
            conn.timeout = min(conn.timeout, deadline)
