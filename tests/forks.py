"""A function in a forked process: quick to start, because everything is imported already."""

import ctypes
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import IO, Any

from django.db import connections

PR_SET_PDEATHSIG = 1


class Forked:
    """A function in a forked process: what `process.run` and the tests use of subprocess.Popen."""

    def __init__(self, function: Callable[[], object], output: IO[bytes], errors: IO[bytes] | None = None) -> None:
        self.returncode: int | None = None
        parent = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            _become(function, output.fileno(), (errors or output).fileno(), parent)

    def poll(self) -> int | None:
        if self.returncode is None:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            if ended:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float = 600) -> int:
        deadline = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(f"forked {self.pid}", timeout)
            time.sleep(0.02)
        return code

    def send_signal(self, number: signal.Signals) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)


def _become(function: Callable[[], object], output: int, errors: int, parent: int) -> None:
    """Run the function in this forked process, and never come back into the test."""
    code: Any = 1
    try:
        os.setsid()
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
            assert os.getppid() == parent, "the parent died before the fork began"
        os.dup2(output, 1)
        os.dup2(errors, 2)
        # closefd: in a fork of a fork these replace such files, whose finalizers would close the new 1 and 2.
        sys.stdout, sys.stderr = (os.fdopen(number, "w", 1, closefd=False) for number in (1, 2))
        # The parent closes its connections, but not all: those from before Playwright's event loop, which hides them
        # there and does not run here. A fork that took one for its own would speak to a server process that is gone.
        for inherited in connections.all(initialized_only=True):
            inherited.connection = None
        function()
        code = 0
    except SystemExit as end:
        code = end.code or 0
    except BaseException:  # noqa: BLE001 (a child never comes back into the test)
        traceback.print_exc()
    finally:
        with suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 1)
