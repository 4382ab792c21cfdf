"""Run a program on two processes with gloo. They are forked, which saves the seconds of starting two interpreters."""

import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import torch

PATIENCE = 400  # seconds until a process counts as waiting forever


def run_on_two(main: Callable[[Path], None], job: Path) -> None:
    """Run the program in both processes. Raises AssertionError unless both exit with 0."""
    codes = ends_of_two(main, job)
    assert codes == [0, 0], codes


def ends_of_two(main: Callable[[Path], None], job: Path) -> list[int]:
    """Return both exit codes: 0, 1 after an exception, or −14 if it still waited after PATIENCE."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    children = [_fork(main, job, rank, port) for rank in (0, 1)]
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def _fork(main: Callable[[Path], None], job: Path, rank: int, port: int) -> int:
    child = os.fork()
    if child:
        return child
    signal.alarm(PATIENCE)
    try:
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        os.environ |= {name: str(value) for name, value in place.items()}
        torch.set_num_threads(1)  # OpenMP's other threads did not survive the fork
        main(job)
    except BaseException:  # noqa: BLE001 (a child never comes back into the test)
        import traceback

        traceback.print_exc()
        os._exit(1)
    os._exit(0)
