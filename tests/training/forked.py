"""A learner's program as a forked process: the real program on the real job directory, without a new interpreter.

A new interpreter imports torch and transformers for six seconds of CPU time. What a program does at its own start
(`python -m training.learner.NAME JOB_DIR`, its end with its parent, its environment) is shown by tests/training/
test_workers.py, test_process.py and tests/browser/test_the_loop.py.
"""

import importlib
import os
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path

import torch

from training.learner.runtime.config import Settings
from training.learner.runtime.program import run_program
from training.run_round import process


class ForkedProgram:
    """What `process.run` uses of subprocess.Popen."""

    def __init__(self, program: str, directory: Path) -> None:
        module = importlib.import_module(f"training.learner.{program}")
        self.returncode: int | None = None
        with (directory / "log.txt").open("ab") as log:
            log.write(f"{process.RUN_MARKER} {program}, forked\n".encode())
            log.flush()
            self.pid = os.fork()
            if self.pid == 0:
                _become(module, directory, log.fileno())

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

    def terminate(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGTERM)


def _become(module, directory: Path, log: int) -> None:
    """Run the program in this forked process, and never come back into the test."""
    code = 1
    try:
        os.setsid()
        os.dup2(log, 1)
        os.dup2(log, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w", 1), os.fdopen(2, "w", 1)
        sys.argv = [module.__name__, str(directory)]
        torch.set_num_threads(1)  # OpenMP's other threads did not survive the fork
        run_program(module.main, Settings)  # read for --help alone
    except SystemExit as end:
        code = end.code
    except BaseException:  # noqa: BLE001 (a child never comes back into the test)
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def start(program: str, directory: Path, processes: int) -> ForkedProgram:
    """Stand in for `training.run_round.process.start`."""
    assert processes == 1, "several processes are the launcher's, which is not forked"
    return ForkedProgram(program, directory)
