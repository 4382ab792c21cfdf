"""A learner's program as a forked process: the real program on the real job directory, without a new interpreter.

A new interpreter imports torch and transformers for six seconds of CPU time. What a program does at its own start
(`python -m training.learner.NAME JOB_DIR`, its end with its parent, its environment) is shown by tests/training/
test_workers.py, test_process.py and tests/browser/test_the_loop.py.
"""

import ctypes
import importlib
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from training.learner.runtime.config import Settings
from training.learner.runtime.program import run_program
from training.run_round import process
from training.run_round.die_with_parent import PR_SET_PDEATHSIG


class Forked:
    """A function in a forked process: what `process.run` and the tests use of subprocess.Popen."""

    def __init__(self, function: Callable[[], object], log: Path) -> None:
        self.returncode: int | None = None
        with log.open("ab") as output:
            parent = os.getpid()
            self.pid = os.fork()
            if self.pid == 0:
                _become(function, output.fileno(), parent)

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


def _become(function: Callable[[], object], log: int, parent: int) -> None:
    """Run the function in this forked process, and never come back into the test."""
    code: Any = 1
    try:
        os.setsid()
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
            assert os.getppid() == parent, "the parent died before the fork began"
        os.dup2(log, 1)
        os.dup2(log, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w", 1), os.fdopen(2, "w", 1)
        function()
        code = 0
    except SystemExit as end:
        code = end.code or 0
    except BaseException:  # noqa: BLE001 (a child never comes back into the test)
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 1)


def run(program: str, directory: Path) -> None:
    """Run the program in this process, a fork."""
    module = importlib.import_module(f"training.learner.{program}")
    sys.argv = [module.__name__, str(directory)]
    torch.set_num_threads(1)  # OpenMP's other threads did not survive the fork
    run_program(module.main, Settings)  # read for --help alone


def start(program: str, directory: Path, processes: int) -> Forked:
    """Stand in for `training.run_round.process.start`."""
    assert processes == 1, "several processes are the launcher's, which is not forked"
    importlib.import_module(f"training.learner.{program}")
    log = directory / "log.txt"
    with log.open("ab") as file:
        file.write(f"{process.RUN_MARKER} {program}, forked\n".encode())
    return Forked(lambda: run(program, directory), log)
