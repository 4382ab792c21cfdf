"""The served checkpoint behind an engine."""

import json
import socket
import sys
import threading
import urllib.error
import urllib.request

import pytest
from django.db import connection

from feedback.errors import Conflict, Invalid
from tests.training.conftest import fake_model
from tests.training.services import wait_until
from training import checkpoints, serving

# An engine of the shortest kind: it answers every request with the model that it was given.
ECHO = """
import http.server, sys
class Echo(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(sys.argv[1].encode())
    def log_message(self, *arguments): pass
http.server.HTTPServer((sys.argv[2], int(sys.argv[3])), Echo).serve_forever()
"""


@pytest.fixture
def port():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


@pytest.fixture
def echo(tmp_path):
    script = tmp_path / "echo.py"
    script.write_text(ECHO)
    return f"{sys.executable} {script} {{model}} {{host}} {{port}}"


def answer(url, body=None):
    """The engine's answer, or "" while there is none."""
    request = urllib.request.Request(url, body and json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.read().decode()
    except OSError:
        return ""


@pytest.mark.services
@pytest.mark.django_db(transaction=True)
def test_the_engine_follows_promotions_and_ends(project, base, tmp_path, port, echo, monkeypatch):
    monkeypatch.setattr(serving, "LOOK_EVERY", 0.1)
    second = checkpoints.import_checkpoint(project, str(fake_model(tmp_path / "second")), "second")
    over, engine = threading.Event(), serving.Engine(echo, "127.0.0.1", port)
    url, told = f"http://127.0.0.1:{port}/", []
    seen = []

    def promote_then_end():
        try:
            wait_until(lambda: answer(url) == base.path, "the engine serves the base")
            checkpoints.promote(second, None)
            wait_until(lambda: answer(url) == second.path, "the engine serves what was promoted")
            seen.append(second.path)
        finally:
            connection.close()
            over.set()

    other = threading.Thread(target=promote_then_end)
    other.start()
    serving.follow(project, engine, told.append, over.is_set)
    other.join()
    assert [line.split()[0] for line in told] == ["base", "second"]
    assert seen == [second.path]
    assert answer(url) == ""


@pytest.mark.services
@pytest.mark.django_db
def test_the_embedded_engine_completes_text(tiny_base, port):
    engine = serving.Engine(serving.TRANSFORMERS, "127.0.0.1", port)
    engine.serve(tiny_base.path)
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: answer(f"{url}/health"), "the engine answers")
        body = {"model": tiny_base.path, "prompt": "Where is", "max_tokens": 4}
        completed = json.loads(answer(f"{url}/v1/completions", body))
        assert isinstance(completed["choices"][0]["text"], str)
    finally:
        engine.stop()


def test_nothing_is_served_where_nothing_was_promoted(project):
    with pytest.raises(Conflict, match="No checkpoint is served"):
        serving.follow(project, serving.Engine(serving.TRANSFORMERS, "127.0.0.1", 1), print, lambda: True)


@pytest.mark.parametrize("engine", ["no-such-engine {model}", "", "vllm {modell}", "vllm 'open"])
def test_an_engine_that_cannot_be_run_is_refused(engine):
    with pytest.raises(Invalid):
        serving.command_line(engine, "/models/base", "127.0.0.1", 8001)
