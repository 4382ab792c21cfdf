"""Reverse proxy with an OpenAI-compatible API: a stable model name, tokens, and errors for unsupported fields.

The engines name their model by its folder, ask for no token, and ignore fields that they do not support. While the
engine is restarted, requests wait; one that waits too long is answered with status 503.
"""

import hmac
import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from training.serving.engine import Engine

COMPLETIONS = ("/v1/chat/completions", "/v1/completions")
MAX_BODY_BYTES = 16 * 2**20
WAIT_SECONDS = 30  # a request waits this long while the engine restarts
ENGINE_TIMEOUT = 600  # seconds between two parts of an engine's answer
# Fields that `transformers serve` accepts and ignores, with the values that have no effect.
UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "best_of": (1,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "echo": (False,),
    "presence_penalty": (0,),
    "response_format": ({"type": "text"},),
    "functions": ([],),
    "function_call": ("none",),
    "tool_choice": ("auto",),
    "modalities": (["text"],),
    "stream_options": (),
    "reasoning_effort": (),
    "audio": (),
    "prediction": (),
    "web_search_options": (),
    "generation_config": (),
}


class Refusal(Exception):
    """Error answer of the proxy itself: a status and a message for the client."""

    def __init__(self, status: int, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status, self.message, self.headers = status, message, headers


def engine_request(body: Any, name: str, engine: Engine) -> dict[str, Any]:
    """Return the request for the engine. Raise Refusal for a field that the engine would ignore."""
    if not isinstance(body, dict):
        raise Refusal(400, "The body is not a JSON object.")
    if body.get("model", name) not in (name, "served"):
        raise Refusal(404, f'There is no model "{body["model"]}": the model served here is called "{name}".')
    fields = {field: value for field, value in body.items() if value is not None}
    if engine.is_transformers:
        for field, neutral in UNSUPPORTED.items():
            if field in fields and not any(same(fields[field], value) for value in neutral):
                value = json.dumps(fields[field])
                raise Refusal(400, f'"{field}" is {value}, which this server does not support: leave it out.')
            fields.pop(field, None)
        fields["generation_config"] = json.dumps(generation_config(engine.model, fields))
    return {**fields, "model": engine.model}


def same(value: Any, neutral: Any) -> bool:
    return bool(value == neutral) and isinstance(value, bool) == isinstance(neutral, bool)


def generation_config(model: str, fields: dict[str, Any]) -> dict[str, Any]:
    """Return the model's generation config, changed to sample from all tokens unless the temperature is 0.

    Without `do_sample`, transformers takes the most probable token at any temperature. Without `top_k`, it samples from
    the 50 most probable tokens.
    """
    file = Path(model) / "generation_config.json"
    config: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else _special_tokens(Path(model))
    for field in ("temperature", "top_p"):
        value = fields.get(field, config.get(field, 1.0))
        if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
            raise Refusal(400, f'"{field}" is {json.dumps(value)}: give a number of at least 0.')
        config[field] = float(value)
    config["do_sample"] = config["temperature"] > 0
    config["top_k"] = config.get("top_k") or 0
    config["max_new_tokens"] = max(config.get("max_new_tokens") or 0, 1024)
    return config


def _special_tokens(model: Path) -> dict[str, Any]:
    """Return the special tokens of a model without a generation_config.json."""
    config = json.loads((model / "config.json").read_text())
    return {name: config[name] for name in ("bos_token_id", "eos_token_id", "pad_token_id") if name in config}


class Server(ThreadingHTTPServer):
    """HTTP server for clients; the engine listens on another port of this machine."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], name: str, engine: Engine, may_enter: Callable[[str], bool]) -> None:
        self.name, self.engine, self.may_enter = name, engine, may_enter
        super().__init__(address, Handler)

    def in_background(self) -> None:
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Handler(BaseHTTPRequestHandler):
    """Handler of one client connection."""

    server: Server
    protocol_version = "HTTP/1.1"
    timeout = 30  # seconds for a request to arrive, piece by piece

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: requests contain prompts and tokens."""

    def _answer(self, act: Callable[[], None]) -> None:
        self.has_begun = False
        try:
            act()
        except Refusal as refusal:
            self._refuse(refusal)
        except (OSError, http.client.HTTPException):  # the client left, or the engine died
            self.close_connection = True
            if not self.has_begun:
                self._refuse(Refusal(503, "The engine stopped before it answered: try again.", **{"Retry-After": "5"}))

    def _get(self) -> None:
        if self.path == "/health":
            is_up = self.server.engine.is_up()
            return self._send(200 if is_up else 503, {"status": "ok" if is_up else "starting"})
        self._check_token()
        card = {"id": self.server.name, "object": "model", "created": self.server.engine.since, "owned_by": "accord"}
        if self.path == "/v1/models":
            return self._send(200, {"object": "list", "data": [card]})
        if self.path in (f"/v1/models/{self.server.name}", "/v1/models/served"):
            return self._send(200, card)
        raise Refusal(404, f"There is no address {self.path}: use /v1/models, {' or '.join(COMPLETIONS)}.")

    def _post(self) -> None:
        keep, self.close_connection = (
            not self.close_connection,
            True,
        )  # an unread body would be parsed as the next request
        self._check_token()
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > MAX_BODY_BYTES:
            raise Refusal(413, f"Send a body with a Content-Length of at most {MAX_BODY_BYTES} bytes.")
        content = self.rfile.read(int(length))
        self.close_connection = not keep
        if self.path not in COMPLETIONS:
            raise Refusal(404, f"There is no address {self.path}: use {' or '.join(COMPLETIONS)}.")
        try:
            body = json.loads(content)
        except ValueError as error:
            raise Refusal(400, f"The body is not JSON ({error}).") from error
        with self.server.engine.in_use(WAIT_SECONDS) as is_up:
            if not is_up:
                raise Refusal(503, "The model is being restarted: try again.", **{"Retry-After": "5"})
            self._forward(engine_request(body, self.server.name, self.server.engine))

    def _forward(self, body: dict[str, Any]) -> None:
        engine = self.server.engine
        connection = http.client.HTTPConnection(engine.host, engine.port, timeout=ENGINE_TIMEOUT)
        try:
            connection.request("POST", self.path, json.dumps(body), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            if "text/event-stream" in answer.headers.get("Content-Type", ""):
                self._stream(answer)
            else:
                self._send(answer.status, renamed(json.loads(answer.read()), self.server.name))
        except ValueError as error:
            raise Refusal(502, "The engine's answer is not JSON: see its log in the terminal.") from error
        finally:
            connection.close()

    def _stream(self, answer: http.client.HTTPResponse) -> None:
        self.has_begun = True
        self.send_response(answer.status)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for line in events(answer, self.server.name):
            self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
        self.wfile.write(b"0\r\n\r\n")

    def _check_token(self) -> None:
        scheme, _, key = self.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not self.server.may_enter(key.strip()):
            needed = "an API token of one of the project's managers, or the key of `serve --token`"
            raise Refusal(401, f"Send `Authorization: Bearer …` with {needed}.", **{"WWW-Authenticate": "Bearer"})

    def _refuse(self, refusal: Refusal) -> None:
        error = {"message": refusal.message, "type": "invalid_request_error", "code": refusal.status}
        self._send(refusal.status, {"error": error}, refusal.headers)

    def _send(self, status: int, answer: Any, headers: dict[str, str] | None = None) -> None:
        self.has_begun = True
        content = json.dumps(answer).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(content)


def events(answer: http.client.HTTPResponse, name: str) -> Iterator[bytes]:
    """Yield the lines of a stream as they arrive, with the model's public name."""
    while line := answer.readline():
        if line.startswith(b"data: {"):
            line = b"data: " + json.dumps(renamed(json.loads(line[6:]), name)).encode() + b"\n"
        yield line


def renamed(answer: Any, name: str) -> Any:
    return {**answer, "model": name} if isinstance(answer, dict) and "model" in answer else answer


class Tokens:
    """Access check: a fixed key, or the API token of one of the project's managers."""

    CACHE_SECONDS = 30  # a valid token is not looked up again for this long

    def __init__(self, fixed_key: str, is_managers: Callable[[str], bool]) -> None:
        self.fixed_key, self.is_managers = fixed_key, is_managers
        self.valid_until: dict[str, float] = {}

    def may_enter(self, key: str) -> bool:
        """Return whether the key gives access."""
        if self.fixed_key and hmac.compare_digest(key.encode(), self.fixed_key.encode()):
            return True
        if self.valid_until.get(key, 0) > time.monotonic():
            return True
        if not key.startswith("acc_") or not self.is_managers(key):
            self.valid_until.pop(key, None)
            return False
        self.valid_until[key] = time.monotonic() + self.CACHE_SECONDS
        return True
