"""An OpenAI-compatible chat endpoint for tests."""

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def chat_endpoint() -> Iterator[tuple[str, list[tuple[str, Any]], list[str | None]]]:
    """Serve a chat endpoint; yield its address, the requests that it gets, and their keys.

    It repeats the last message. The model "elsewhere" is a redirect, "repeats the key" an error with the key.
    """
    asked, keys = [], []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append((self.path, body))
            keys.append(self.headers["Authorization"])
            if body["model"] in ("elsewhere", "repeats the key"):
                self.send_response(302 if body["model"] == "elsewhere" else 401, f"Not with {keys[-1]}")
                self.send_header("Location", f"{self.path}/elsewhere")
                self.end_headers()
                return
            content = body["messages"][-1]["content"] + "!"
            answer = {"choices": [{"message": {"content": content}}]} if body["model"] == "known" else {}
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def do_GET(self):  # a POST that is redirected becomes this
            asked.append((self.path, None))
            keys.append(self.headers["Authorization"])
            self.send_error(404)

        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1", asked, keys
    server.shutdown()
