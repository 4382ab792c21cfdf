"""The web workers share the connections that browsers keep."""

import http.client
import socket
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.conf import settings

from tests.benchmarks.web.processes import free_port

THREADS = 3


@pytest.fixture
def port():
    port = free_port()
    service = serve(port)
    try:
        wait_for_both(port)
        yield port
    finally:
        service.terminate()
        service.wait(30)


def serve(port, *options):
    command = [sys.executable, "-m", "gunicorn", "tests.config.slow_app", "--bind", f"127.0.0.1:{port}"]
    command += ["--workers", "2", "--threads", str(THREADS), "--worker-class", "config.web_worker.FairThreads"]
    return subprocess.Popen(
        [*command, "--no-control-socket", *options], cwd=settings.BASE_DIR, stderr=subprocess.DEVNULL
    )


def answering(connection):
    connection.request("GET", "/")
    return connection.getresponse().read().decode()


def at_once(connections):
    with ThreadPoolExecutor(len(connections)) as people:
        return list(people.map(answering, connections))


def connect(port, count):
    return [http.client.HTTPConnection("127.0.0.1", port, timeout=60) for _ in range(count)]


def wait_for_both(port):
    """Until both workers answer: more people than one of them has threads."""
    seen = set()
    deadline = time.monotonic() + 60
    while len(seen) < 2 and time.monotonic() < deadline:
        connections = connect(port, THREADS + 1)
        try:
            seen |= set(at_once(connections))
        except OSError:  # it does not listen yet
            time.sleep(0.2)
        for connection in connections:
            connection.close()
    assert len(seen) == 2


def test_people_who_come_at_once_are_shared_out_and_stay_where_they_are(port):
    connections = connect(port, 2 * THREADS)
    first = at_once(connections)
    assert sorted(Counter(first).values()) == [THREADS, THREADS]
    assert at_once(connections) == first


def test_who_comes_while_one_worker_is_busy_is_served_by_the_other(port):
    busy = connect(port, THREADS)
    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(at_once, busy)
        time.sleep(0.3)
        later = connect(port, THREADS)
        shares = Counter([*at_once(later), *held.result()])
    assert sorted(shares.values()) == [THREADS, THREADS]


def test_connections_that_say_nothing_hold_up_nobody(port):
    """A thread that waited for each of them would be busy for minutes; the application takes a second."""
    silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(40 * THREADS)]
    (person,) = connect(port, 1)
    assert answering(person)
    late = silent[-THREADS:]
    for each in late:
        each.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert all(b"200 OK" in each.recv(100) for each in late)
    for each in silent:
        each.close()


def test_a_stop_does_not_wait_for_connections_that_say_nothing():
    port = free_port()
    service = serve(port, "--keep-alive", "3600", "--graceful-timeout", "3600")
    try:
        wait_for_both(port)
        silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(2 * THREADS)]
        time.sleep(0.5)  # until they are accepted
        service.terminate()
        service.wait(60)
        for each in silent:
            each.close()
    finally:
        service.kill()
