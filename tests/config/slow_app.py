"""WSGI application that reads the request, takes a second, and answers with the PID of its process.

GET /held first makes a file in the folder ACCORD_TEST_HOLD, then takes until the file "go" is there.
"""

import os
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    environ["wsgi.input"].read()
    if environ["PATH_INFO"] == "/held":
        hold = Path(os.environ["ACCORD_TEST_HOLD"])
        (hold / f"held-{os.getpid()}-{threading.get_ident()}").touch()
        while not (hold / "go").exists():
            time.sleep(0.05)
    else:
        time.sleep(1)
    body = str(os.getpid()).encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
