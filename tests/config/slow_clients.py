"""Clients that open requests and do not finish them, against a real server."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from config.runtime import web_worker

HALF_HEAD = b"GET / HTTP/1.1\r\nHost: a\r\nX-Never: ends"
TRICKLES = {
    "head": HALF_HEAD,
    "small body": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nb",
    "large body": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000\r\n\r\nb",
    "chunked body": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nb",
    "empty lines": b"\r\n\r\n\r\n",
}


@contextmanager
def trickling(port: int, begins: bytes, count: int, every: float) -> Iterator[list[socket.socket]]:
    """Open `count` connections that send `begins`, then a byte every `every` seconds until they are closed."""
    clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(count)]
    over = threading.Event()

    def trickle() -> None:
        while True:
            for client in clients:
                try:
                    client.sendall(b"x")
                except OSError:
                    continue
            if over.wait(every):
                return

    for client in clients:
        client.sendall(begins)
    sender = threading.Thread(target=trickle)
    sender.start()
    try:
        yield clients
    finally:
        over.set()
        sender.join()
        for client in clients:
            client.close()


class ImpatientWorker(web_worker.BufferedThreadWorker):
    """The worker with shorter time limits, so that a test need not wait for the real ones."""

    def init_process(self) -> None:
        web_worker.ARRIVAL_SECONDS, web_worker.GAP_SECONDS = 3, 2
        super().init_process()
