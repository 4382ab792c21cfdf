"""Test processes as forks of one process, which has imported what takes long: torch, transformers, scipy, playwright.

Each test process imports these for six seconds of CPU time otherwise. `python -m tests.forked_workers SOCKET` is the
process that forks. pytest-xdist starts `python tests/forked_workers.py SOCKET …` in place of a Python for each test
process: it hands its standard streams over the socket to a fork, and ends with it. Linux only.
"""

import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

# Execnet's line, which a fork runs as `python -c` would: its program comes over standard input.
PROGRAM = "import sys;exec(eval(sys.stdin.readline()))"
STREAMS = 3


@contextmanager
def forking() -> Iterator[str]:
    """Start the process that forks; yield pytest-xdist's specification of a test process that is a fork of it."""
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as server:
        address = os.path.join(folder, "socket")
        server.bind(address)
        server.listen()
        command = [sys.executable, "-m", "tests.forked_workers", str(server.fileno())]
        process = subprocess.Popen(command, pass_fds=[server.fileno()])
        try:
            yield f"popen//python={shlex.join([sys.executable, '-S', __file__, address])}"
        finally:
            process.terminate()
            process.wait()


def hand_over(address: str) -> None:
    """Let a fork use this process's standard streams, and wait until it has ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C comes to the fork, too
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
        socket.send_fds(connection, [b"."], range(STREAMS))
        connection.recv(1)  # nothing: the end of the last process that holds the other side


def fork_for_each_connection(server: socket.socket) -> None:
    """Import first, then accept connections until this process is ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C comes to the forks, too
    import_what_takes_long()
    signal.signal(signal.SIGTERM, end_after_the_forks)
    while True:
        connection, _address = server.accept()
        _message, streams, _flags, _sender = socket.recv_fds(connection, 1, STREAMS)
        if os.fork() == 0:
            server.close()
            become_worker(streams)
        connection.close()
        for stream in streams:
            os.close(stream)


def import_what_takes_long() -> None:
    import importlib
    import pkgutil

    from training import learner

    programs = [f"training.learner.{module.name}" for module in pkgutil.iter_modules(learner.__path__)]
    for name in ("playwright.sync_api", "scipy.stats", *programs):
        importlib.import_module(name)
    # A fork has the thread that forks and no other: what the others hold would stay locked for ever.
    assert len(os.listdir("/proc/self/task")) == 1, "an import has started a thread"


def end_after_the_forks(number: int, frame: FrameType | None) -> None:
    """Wait for the forks, which are ending, so that their CPU time is counted as this process's; then end."""
    signal.alarm(30)  # ends this process if a fork hangs
    try:
        while True:
            os.wait()
    except ChildProcessError:
        sys.exit()


def become_worker(streams: list[int]) -> None:
    """Run execnet's program in this fork, as a new Python with these standard streams would."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w", 1), os.fdopen(2, "w", 1)
    sys.argv = ["-c"]
    exec(PROGRAM, sys.modules["__main__"].__dict__)
    sys.exit()


if __name__ == "__main__":
    if Path(sys.argv[1]).is_socket():
        hand_over(sys.argv[1])
    else:
        fork_for_each_connection(socket.socket(fileno=int(sys.argv[1])))
