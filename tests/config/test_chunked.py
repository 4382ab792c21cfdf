"""Request bodies without Content-Length, and bodies that the application does not read."""

import hashlib
import http.client
import io
import json
import subprocess
import sys
import time

import pytest
from django.conf import settings
from django.core.signals import request_finished, request_started
from django.core.wsgi import get_wsgi_application
from django.db import close_old_connections
from django.test import Client

from config.runtime import chunked
from config.runtime.chunked import with_length
from feedback.actions.tokens import issue_token
from feedback.models import Prompt
from tests.benchmarks.web.processes import free_port
from training.models import Round

URL = "/api/v1/projects/support"
PATIENCE = 240  # seconds until a waiting test fails; no speed is tested


@pytest.fixture(scope="module")
def port():
    port = free_port()
    command = [sys.executable, "-m", "gunicorn", "tests.config.body_app", "--bind", f"127.0.0.1:{port}"]
    command += ["--worker-class", "config.runtime.web_worker.BufferedThreadWorker", "--threads", "2"]
    command += ["--no-control-socket"]
    service = subprocess.Popen(command, cwd=settings.BASE_DIR, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            try:
                http.client.HTTPConnection("127.0.0.1", port, timeout=60).connect()
                break
            except OSError:
                time.sleep(0.1)
        yield port
    finally:
        service.terminate()
        service.wait(PATIENCE)


def send(port, pieces, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST", "/", iter(pieces), headers, encode_chunked=True)
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


@pytest.mark.process
def test_a_chunked_body_arrives_whole_over_a_real_connection(port):
    pieces = [bytes([n % 251]) * 9_973 for n in range(100)]
    whole = b"".join(pieces)
    sent = send(port, pieces, **{"Transfer-Encoding": "chunked"})
    assert sent == (200, f"{len(whole)} {hashlib.sha256(whole).hexdigest()}")


@pytest.mark.process
def test_a_large_anonymous_chunked_body_is_refused(port):
    status, message = send(port, [b"x" * 1024] * 1025, **{"Transfer-Encoding": "chunked"})
    assert status == 413 and "several parts" in message
    assert send(port, [b"x" * 1024] * 3, **{"Transfer-Encoding": "chunked"})[0] == 200


@pytest.fixture
def post(db, manager, monkeypatch):
    """POST a chunked body to Accord's application as gunicorn passes it on. Return status and JSON."""
    _token, key = issue_token(manager, "chunked")
    application = with_length(get_wsgi_application())

    def send(path: str, body: bytes, content_type: str, key: str = key, cookie: str = ""):
        path, _, query = path.partition("?")
        environ = Client()._base_environ(REQUEST_METHOD="POST", PATH_INFO=path, CONTENT_TYPE=content_type)
        environ["QUERY_STRING"] = query
        environ |= {"wsgi.input": io.BytesIO(body), "wsgi.input_terminated": True}
        environ |= {"HTTP_TRANSFER_ENCODING": "chunked", "HTTP_COOKIE": cookie}
        if key:
            environ["HTTP_AUTHORIZATION"] = f"Bearer {key}"
        statuses = []
        answer = application(environ, lambda status, headers: statuses.append(status))
        return int(statuses[0].split()[0]), json.loads(b"".join(answer))

    # A server closes old connections with each request; here the connection must stay open for the test's transaction.
    monkeypatch.setattr(chunked, "close_old_connections", lambda: None)
    for signal in (request_started, request_finished):
        signal.disconnect(close_old_connections)
    yield send
    for signal in (request_started, request_finished):
        signal.connect(close_old_connections)


def test_prompts_in_a_chunked_body_are_added(post, project):
    status, answer = post(f"{URL}/prompts", b'{"prompt": "one"}\n{"prompt": "two"}\n', "application/x-ndjson")
    assert (status, answer["created"]) == (201, 2)
    assert Prompt.objects.count() == 2


@pytest.mark.slow
def test_a_large_chunked_body_needs_a_real_token_or_session(post, project, manager):
    body = b'{"prompt": "%s"}' % (b"x" * 90_000)
    body = b"\n".join(body.replace(b"xx", b"%02d" % n, 1) for n in range(20))
    assert post(f"{URL}/prompts", body, "application/x-ndjson", key="acc_made_up")[0] == 413
    assert post(f"{URL}/prompts", body, "application/x-ndjson", key="", cookie="sessionid=made-up")[0] == 413
    assert post(f"{URL}/prompts", body, "application/x-ndjson")[0] == 201


def test_a_chunked_bodys_settings_are_checked_before_a_round_starts(post, project):
    status, answer = post(f"{URL}/rounds", b'{"learns": "perhaps"}', "application/json")
    assert status == 400 and "learns" in answer["message"]
    assert not Round.objects.exists()


@pytest.mark.parametrize("path", ["prompts", "completions?source=x", "comparisons", "gold"])
@pytest.mark.parametrize("body", [b"", b"\n\n"])
def test_an_upload_without_a_row_is_refused(post, project, path, body):
    status, answer = post(f"{URL}/{path}", body, "application/x-ndjson")
    assert status == 400 and "no row" in answer["message"]


@pytest.mark.process
@pytest.mark.parametrize("size", [100_000, 900_000])
def test_an_unread_body_leaves_the_connection_open(port, size):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.connect()
    first = connection.sock
    for _ in range(3):
        connection.request("POST", "/unread", b"x" * size)
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (401, b"no")
        assert connection.sock is first
    connection.request("POST", "/", b"abc")
    assert connection.getresponse().read().startswith(b"3 ")
