"""The web worker: sharing of kept connections between processes, and slow or incomplete requests."""

import http.client
import socket
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from django.conf import settings

from config.runtime.web_worker import COMPLETE, HEAD_LIMIT, INCOMPLETE, LARGE, SMALL_BODY, TOO_LARGE, progress
from tests.benchmarks.web.processes import free_port
from tests.config.slow_clients import HALF_HEAD, TRICKLES, trickling

THREADS = 3
PATIENCE = 240  # seconds until a waiting test fails; no speed is tested


@pytest.fixture(scope="module")
def port():
    """Return the port of one service for all tests that leave no request unfinished."""
    with serving() as port:
        yield port


@contextmanager
def serving():
    port = free_port()
    service = serve(port)
    try:
        wait_for_both(port)
        yield port
    finally:
        service.terminate()
        service.wait(PATIENCE)


def serve(port, *options, worker="config.runtime.web_worker.BufferedThreadWorker"):
    command = [sys.executable, "-m", "gunicorn", "tests.config.slow_app", "--bind", f"127.0.0.1:{port}"]
    command += ["--workers", "2", "--threads", str(THREADS), "--worker-class", worker]
    return subprocess.Popen(
        [*command, "--no-control-socket", *options], cwd=settings.BASE_DIR, stderr=subprocess.DEVNULL
    )


def answering(connection, path="/"):
    connection.request("GET", path)
    return connection.getresponse().read().decode()


def send_concurrently(connections, path="/"):
    with ThreadPoolExecutor(len(connections)) as people:
        return list(people.map(answering, connections, [path] * len(connections)))


def connect(port, count):
    return [http.client.HTTPConnection("127.0.0.1", port, timeout=60) for _ in range(count)]


def wait_for_both(port):
    """Wait until both workers answer: send more requests than one of them has threads."""
    seen = set()
    deadline = time.monotonic() + PATIENCE
    while len(seen) < 2 and time.monotonic() < deadline:
        connections = connect(port, THREADS + 1)
        try:
            seen |= set(send_concurrently(connections))
        except OSError:  # it does not listen yet
            time.sleep(0.2)
        for connection in connections:
            connection.close()
    assert len(seen) == 2


@pytest.mark.process
def test_simultaneous_clients_are_shared_between_workers_and_stay_there(port):
    connections = connect(port, 2 * THREADS)
    first = send_concurrently(connections)
    assert sorted(Counter(first).values()) == [THREADS, THREADS]
    assert send_concurrently(connections) == first
    for connection in connections:
        connection.close()


@pytest.mark.full
@pytest.mark.process
def test_clients_that_come_while_one_worker_is_busy_are_served_by_the_other(tmp_path, monkeypatch):
    monkeypatch.setenv("ACCORD_TEST_HOLD", str(tmp_path))
    port = free_port()
    service = serve(port)
    try:
        wait_for_both(port)
        with ThreadPoolExecutor(1) as pool:
            held = pool.submit(send_concurrently, connect(port, THREADS), "/held")
            deadline = time.monotonic() + PATIENCE
            while len(list(tmp_path.glob("held-*"))) < THREADS and time.monotonic() < deadline:
                time.sleep(0.05)
            later = send_concurrently(connect(port, THREADS))
            (tmp_path / "go").touch()
            shares = Counter([*later, *held.result()])
    finally:
        (tmp_path / "go").touch()
        service.terminate()
        service.wait(PATIENCE)
    assert sorted(shares.values()) == [THREADS, THREADS]


@pytest.mark.process
def test_silent_connections_delay_nobody(port):
    """A thread that waited for each connection would be busy for minutes; the application takes a second."""
    silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(40 * THREADS)]
    (person,) = connect(port, 1)
    assert answering(person)
    late = silent[-THREADS:]
    for connection in late:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert all(b"200 OK" in connection.recv(100) for connection in late)
    for connection in silent:
        connection.close()


@pytest.mark.process
def test_a_stop_does_not_wait_for_silent_connections():
    port = free_port()
    service = serve(port, "--keep-alive", "3600", "--graceful-timeout", "3600")
    try:
        wait_for_both(port)
        silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(2 * THREADS)]
        time.sleep(0.5)  # until they are accepted
        service.terminate()
        service.wait(PATIENCE)
        for connection in silent:
            connection.close()
    finally:
        service.kill()


@pytest.mark.process
@pytest.mark.full
@pytest.mark.parametrize("kind", TRICKLES)
def test_unfinished_requests_delay_nobody(kind):
    """Open 32 requests on six threads; each request keeps sending single bytes."""
    with serving() as port, trickling(port, TRICKLES[kind], count=32, every=0.2):
        for _ in range(3):
            (person,) = connect(port, 1)
            person.timeout = 8
            assert answering(person)


@pytest.mark.full
@pytest.mark.process
def test_an_endless_request_is_refused_although_it_sends_a_byte_now_and_then():
    port = free_port()
    service = serve(port, worker="tests.config.slow_clients.ImpatientWorker")
    try:
        wait_for_both(port)
        with trickling(port, HALF_HEAD, count=8, every=0.5) as clients:
            for client in clients:
                client.settimeout(20)
                assert client.recv(100).startswith(b"HTTP/1.1 408 ")
        with trickling(port, TRICKLES["large body"], count=1, every=0.2) as (client,):
            client.settimeout(20)
            assert client.recv(100) == b"" or not client.recv(100).startswith(b"HTTP/1.1 200")
    finally:
        service.kill()
        service.wait()


@pytest.mark.process
def test_bodies_arrive_complete_however_they_are_split(port):
    for body in (b"b" * 1000, b"b" * (3 * SMALL_BODY)):
        head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body)
        with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
            for piece in (head[:20], head[20:] + body[:10], body[10:500], body[500:]):
                client.sendall(piece)
                time.sleep(0.05)
            assert client.recv(100).startswith(b"HTTP/1.1 200")


@pytest.mark.process
def test_two_requests_sent_at_once_are_both_answered(port):
    request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
        client.sendall(request + request)
        received = b""
        while received.count(b"200 OK") < 2:
            received += client.recv(1000)


@pytest.mark.process
def test_a_client_that_expects_100_continue_gets_it(port):
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 100 ")
        client.sendall(b"abc")
        assert client.recv(100).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    ("received", "state"),
    [
        (b"", INCOMPLETE),
        (HALF_HEAD, INCOMPLETE),
        (b"GET / HTTP/1.1\r\n\r\n", COMPLETE),
        (b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nab", INCOMPLETE),
        (b"POST / HTTP/1.1\r\ncontent-length:3\r\n\r\nabc", COMPLETE),
        (b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\na" % (SMALL_BODY + 1), LARGE),
        (b"POST / HTTP/1.1\r\nContent-Length: many\r\n\r\n", LARGE),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", LARGE),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * HEAD_LIMIT, TOO_LARGE),
    ],
)
def test_a_thread_gets_a_request_when_it_is_complete(received, state):
    assert progress(received) == state
