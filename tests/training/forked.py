"""A learner's program as a forked process: the real program on the real job directory, without a new interpreter.

A new interpreter imports torch and transformers for six seconds of CPU time. What a program does at its own start
(`python -m training.learner.NAME JOB_DIR`, its end with its parent, its environment) is shown by tests/training/
test_workers.py, test_process.py and tests/browser/test_the_loop.py.
"""

import importlib
import json
import sys
from pathlib import Path
from typing import IO

import torch

from tests.forks import Forked
from training.learner.models.verdict import verdict_on
from training.learner.runtime.config import Settings
from training.learner.runtime.program import run_program
from training.run_round import process


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
    with (directory / "log.txt").open("ab") as log:
        log.write(f"{process.RUN_MARKER} {program}, forked\n".encode())
        log.flush()
        return Forked(lambda: run(program, directory), log)


def start_check(folder: str, output: IO[bytes], errors: IO[bytes]) -> Forked:
    """Stand in for `training.run_round.probe_model.start`."""

    def check() -> None:
        torch.set_num_threads(1)
        print(json.dumps(verdict_on(folder)))

    return Forked(check, output, errors)
