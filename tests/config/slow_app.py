"""A WSGI application that reads the request, says which process answers, and takes its time.

GET /held takes until the file "go" is in the folder ACCORD_TEST_HOLD, where it leaves a file of its own first.
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
