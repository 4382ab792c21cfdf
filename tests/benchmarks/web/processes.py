"""Processes that end with this one, however it ends."""

import ctypes
import os
import pwd
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import psutil

from config.runtime.errors import SetupError

STOP_TIMEOUT = 30  # seconds between the first signal and SIGKILL
START_TIMEOUT = 180  # seconds until a service's first answer: Label Studio imports slowly

# Proxies of the environment are for other hosts; these services run on this machine.
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@contextmanager
def running(
    command: list[str],
    log: Path,
    *,
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
    owner: str | None = None,
    polite: signal.Signals = signal.SIGTERM,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a service until the end of the block, as the user `owner` if one is named."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            start_new_session=True, preexec_fn=partial(_die_with_parent, polite) if sys.platform == "linux" else None,
            **as_user(owner),
        )  # fmt: skip
    try:
        yield process
    finally:
        process.send_signal(polite)
        try:
            process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def as_user(owner: str | None) -> dict[str, object]:
    """Return arguments of subprocess to run a command as this user, without this process's groups."""
    return {} if owner is None else {"user": owner, "group": pwd.getpwnam(owner).pw_gid, "extra_groups": []}


def _die_with_parent(number: int) -> None:
    ctypes.CDLL(None).prctl(1, number)  # PR_SET_PDEATHSIG


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait for an answer. Raises SetupError, with the end of the log, if the process ends or takes too long."""
    deadline = time.monotonic() + START_TIMEOUT
    while not _answers(address):
        if process.poll() is not None or time.monotonic() > deadline:
            raise SetupError(f"nothing answers at {address}; the end of its log:\n{tail(log)}")
        time.sleep(0.2)


def tail(log: Path, lines: int = 15) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


def _answers(address: str) -> bool:
    try:
        with _direct.open(address, timeout=10):
            return True
    except urllib.error.HTTPError:
        return True  # an error status is an answer too
    except (urllib.error.URLError, OSError):
        return False


def worker_megabytes(process: subprocess.Popen[bytes]) -> float:
    """Return the resident memory of a web worker in MB: the mean over processes without children."""
    family = psutil.Process(process.pid).children(recursive=True)
    workers = [each for each in family if not each.children()]
    return sum(worker.memory_info().rss for worker in workers) / len(workers) / 1e6
