"""The served checkpoint behind an engine."""

import json
import socket
import sys
import threading
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from django.db import connection

from feedback.actions.tokens import issue_token
from feedback.errors import Conflict, Invalid
from tests.factories import FAST, fake_model
from tests.training import tiny
from tests.training.services import wait_until
from training import checkpoints
from training.management.commands.serve import is_managers
from training.serving import openai_api
from training.serving.engine import TRANSFORMERS, Engine, command_line, follow, free_port

# An engine of the shortest kind: it answers every request with the model that it was given.
ECHO = """
import http.server, json, sys
class Echo(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(sys.argv[1].encode())
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200); self.end_headers()
        self.wfile.write(json.dumps({"served_by": sys.argv[1]}).encode())
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


@pytest.mark.process
@pytest.mark.django_db(transaction=True)
def test_the_engine_follows_promotions_and_ends(project, base, tmp_path, port, echo, monkeypatch):
    monkeypatch.setattr("training.serving.engine.POLL_SECONDS", 0.1)
    second = checkpoints.import_checkpoint(project, str(fake_model(tmp_path / "second")), "second", verdict=FAST)
    over, engine = threading.Event(), Engine(echo, "127.0.0.1", port)
    url, lines = f"http://127.0.0.1:{port}/", []
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
    follow(project, engine, lines.append, over.is_set)
    other.join()
    assert [line.split()[0] for line in lines] == ["base", "second"]
    assert seen == [second.path]
    assert answer(url) == ""


@contextmanager
def served(engine, name, may_enter=lambda key: key == "key"):
    server = openai_api.Server(("127.0.0.1", 0), name, engine, may_enter)
    server.in_background()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        engine.stop()


def ask(url, body=None, key="key"):
    """Status, headers and body of an answer."""
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body and json.dumps(body).encode(), headers)) as answer:
            return answer.status, answer.headers, answer.read().decode()
    except urllib.error.HTTPError as refused:
        return refused.code, refused.headers, refused.read().decode()


@pytest.fixture(scope="module")
def gateway(tiny_folder):
    """A real engine on a tiny model that an import would bring: its generation_config.json says nothing of sampling."""
    engine = Engine(TRANSFORMERS, "127.0.0.1", free_port())
    engine.serve(str(tiny_folder))
    with served(engine, "support") as url:
        wait_until(lambda: ask(f"{url}/health")[0] == 200, "the engine answers")
        yield url


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory):
    return tiny.make_model(tmp_path_factory.mktemp("tiny"))


def complete(url, **fields):
    status, _headers, body = ask(f"{url}/v1/completions", {"prompt": "Where is", "max_tokens": 8, **fields})
    assert status == 200, body
    return json.loads(body)


def texts(url, temperature):
    return {complete(url, temperature=temperature, seed=n)["choices"][0]["text"] for n in range(4)}


@pytest.mark.full
@pytest.mark.process
def test_seeds_give_different_answers_at_every_temperature_but_zero(gateway):
    assert len(texts(gateway, 0)) == 1
    for temperature in (1, 1.5, 2):
        assert len(texts(gateway, temperature)) > 1
    assert complete(gateway, temperature=1, seed=1)["choices"] == complete(gateway, temperature=1, seed=1)["choices"]


@pytest.mark.full
@pytest.mark.process
def test_the_model_has_one_name_and_its_folder_is_not_shown(gateway):
    models = json.loads(ask(f"{gateway}/v1/models")[2])
    assert [model["id"] for model in models["data"]] == ["support"]
    for named in ({}, {"model": "support"}, {"model": "served"}):
        assert complete(gateway, **named)["model"] == "support"
    status, _headers, body = ask(f"{gateway}/v1/completions", {"model": "gpt-4", "prompt": "Hello"})
    assert (status, "support" in body) == (404, True)


@pytest.mark.process
def test_a_stream_passes_through(gateway):
    body = {"prompt": "Where is", "max_tokens": 4, "stream": True}
    status, headers, body = ask(f"{gateway}/v1/completions", body)
    assert (status, headers["Content-Type"]) == (200, "text/event-stream")
    pieces = [json.loads(line[6:]) for line in body.splitlines() if line.startswith("data: {")]
    assert len(pieces) > 1
    assert {piece["model"] for piece in pieces} == {"support"}


@pytest.mark.process
@pytest.mark.parametrize(
    ("field", "value"),
    [("n", 2), ("logprobs", 5), ("logprobs", True), ("top_logprobs", 3), ("best_of", 4), ("echo", True)],
)
def test_fields_that_the_engine_would_ignore_are_refused_by_name(gateway, field, value):
    status, _headers, body = ask(f"{gateway}/v1/completions", {"prompt": "Where is", field: value})
    assert status == 400
    assert field in json.loads(body)["error"]["message"]


@pytest.mark.process
@pytest.mark.parametrize("temperature", [-1, "hot", True])
def test_an_invalid_temperature_is_refused(gateway, temperature):
    status, _headers, body = ask(f"{gateway}/v1/completions", {"prompt": "Where is", "temperature": temperature})
    assert (status, "temperature" in body) == (400, True)


@pytest.mark.process
@pytest.mark.parametrize("path", ["/v1/models", "/v1/completions", "/load_model"])
def test_a_request_without_a_token_is_refused(gateway, path):
    for key in ("", "another"):
        assert ask(f"{gateway}{path}", {"prompt": "Hi"} if path != "/v1/models" else None, key)[0] == 401


@pytest.mark.process
@pytest.mark.parametrize("path", ["/load_model", "/reset", "/v1/responses"])
def test_other_addresses_of_the_engine_cannot_be_reached(gateway, path):
    assert ask(f"{gateway}{path}", {"model": "/tmp"})[0] == 404


@pytest.mark.process
def test_a_request_during_a_promotion_waits_for_the_new_model(tmp_path, echo, monkeypatch):
    monkeypatch.setattr(openai_api, "WAIT_SECONDS", 300)  # a busy machine takes long to start a model
    engine = Engine(echo, "127.0.0.1", free_port())
    engine.serve("first")
    asked = threading.Event()
    up = engine.is_up
    monkeypatch.setattr(engine, "is_up", lambda: up() or asked.set())
    with served(engine, "support") as url:
        wait_until(engine.is_up, "the first model answers")
        engine.stop()
        asked.clear()
        with ThreadPoolExecutor(1) as pool:
            waits = pool.submit(ask, f"{url}/v1/completions", {"prompt": "Hello"})
            assert asked.wait(300)  # the request has found no engine before the promotion begins
            engine.serve("second")
            assert json.loads(waits.result()[2])["served_by"] == "second"


@pytest.mark.process
def test_a_request_that_waited_too_long_gets_a_retry_after_header(echo, monkeypatch):
    monkeypatch.setattr(openai_api, "WAIT_SECONDS", 0.5)
    with served(Engine(echo, "127.0.0.1", free_port()), "support") as url:
        status, headers, _said = ask(f"{url}/v1/completions", {"prompt": "Hello"})
        assert (status, headers["Retry-After"]) == (503, "5")
        assert ask(f"{url}/health")[0] == 503


@pytest.mark.django_db(transaction=True)
def test_managers_may_use_the_model_with_their_tokens_and_others_may_not(project, manager, annotator, stranger):
    tokens = openai_api.Tokens("given", lambda key: is_managers(project, key))
    keys = {
        name: issue_token(user, "serve")[1]
        for name, user in {"manager": manager, "annotator": annotator, "stranger": stranger}.items()
    }
    assert {name: tokens.may_enter(key) for name, key in keys.items()} == {
        "manager": True,
        "annotator": False,
        "stranger": False,
    }
    assert [tokens.may_enter(key) for key in ("given", "", "acc_unknown")] == [True, False, False]
    assert not openai_api.Tokens("", lambda key: False).may_enter("")


def test_nothing_is_served_before_the_first_promotion(project):
    with pytest.raises(Conflict, match="No checkpoint is served"):
        follow(project, Engine(TRANSFORMERS, "127.0.0.1", 1), print, lambda: True)


@pytest.mark.parametrize("engine", ["no-such-engine {model}", "", "vllm {modell}", "vllm 'open"])
def test_an_engine_command_that_cannot_run_is_refused(engine):
    with pytest.raises(Invalid):
        command_line(engine, "/models/base", "127.0.0.1", 8001)
