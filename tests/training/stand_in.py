"""A stand-in endpoint on loopback: a tiny model's real completions over OpenAI's protocol, and faults on request."""

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

MODEL = "tiny-chat"


class StandIn:
    """The endpoint's address, what it was asked, and the faults that it has next, first to last.

    A fault is a status, or a status with headers, or "slow", "broken JSON", "cut off", "empty". `gate` holds slow
    answers until the test opens it.
    """

    def __init__(self, folder: Path | None) -> None:
        self.faults: list[Any] = []
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.hosts: list[str | None] = []
        self.gate = threading.Event()
        self.most_at_once = self.at_once = 0
        self.lock = threading.Lock()
        self.write = writer(folder) if folder else lambda body: (body["messages"][-1]["content"] + "!", True, 3, 2)
        self.url = ""


def writer(folder: Path):
    """Return a function that samples a completion of a request with the model in the folder."""
    from training.learner.models.loading import load_policy
    from training.learner.sampling.sampler import sample, sampling_params_for
    from training.learner.text.messages import decode_completion, encode_prompt

    policy, tokenizer = load_policy(str(folder))
    lock, numbers = threading.Lock(), iter(range(10**6))

    def write(body):
        with lock:
            tokens = encode_prompt(tokenizer, body["messages"], 64)
            params = sampling_params_for(
                policy, tokenizer, body["max_tokens"], body.get("temperature", 1.0), body.get("top_p", 1.0), 0
            )
            (done,) = sample(policy, [tokens], [next(numbers)], params, 1)
            return decode_completion(tokenizer, done.tokens) or "–", done.finished, len(tokens), len(done.tokens)

    return write


@contextmanager
def stand_in(folder: Path | None = None) -> Iterator[StandIn]:
    """Serve the model in the folder, or an echo of the last message without one."""
    state = StandIn(folder)

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            self.send_json(200, {"object": "list", "data": [{"id": "other"}, {"id": MODEL}]})

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with state.lock:
                state.asked.append(body)
                state.keys.append(self.headers["Authorization"])
                state.hosts.append(self.headers["Host"])
                state.at_once += 1
                state.most_at_once = max(state.most_at_once, state.at_once)
                fault = state.faults.pop(0) if state.faults else None
            try:
                self.answer(body, fault)
            finally:
                with state.lock:
                    state.at_once -= 1

        def answer(self, body, fault):
            status, headers = fault if isinstance(fault, tuple) else (fault, {})
            if isinstance(status, int):
                error = {"message": f"Not with {self.headers['Authorization']}"}
                return self.send_json(status, {"error": error}, headers)
            if fault == "slow":
                state.gate.wait(60)
            text, finished, read, written = state.write(body)
            if fault == "empty":
                text = ""
            answer = {
                "model": f"{body['model']}-v1",
                "choices": [{"message": {"content": text}, "finish_reason": "stop" if finished else "length"}],
                "usage": {"prompt_tokens": read, "completion_tokens": written},
            }
            if fault == "broken JSON":
                return self.send(200, json.dumps(answer).encode()[:-9])
            if fault == "cut off":
                return self.send(200, json.dumps(answer).encode(), length=10**6)
            return self.send_json(200, answer)

        def send_json(self, status, body, headers=None):
            self.send(status, json.dumps(body).encode(), headers)

        def send(self, status, content, headers=None, length=None):
            self.send_response(status)
            for name, value in {"Content-Length": str(length or len(content)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)
            self.close_connection = length is not None

        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    state.url = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        yield state
    finally:
        state.gate.set()
        server.shutdown()
        server.server_close()
