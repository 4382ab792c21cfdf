"""`manage.py up` as an operator runs it: it answers, and Ctrl-C leaves nothing behind."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.services


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def processes_of(folder: Path) -> list[psutil.Process]:
    """Every process, of whatever parent, that works on this data folder."""

    def names_it(process: psutil.Process) -> bool:
        try:
            return str(folder) in " ".join(process.cmdline()) or process.environ().get("ACCORD_DATA") == str(folder)
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            return False

    return [process for process in psutil.process_iter() if process.pid != os.getpid() and names_it(process)]


@pytest.fixture
def accord(tmp_path: Path):
    """A running `up` on a data folder and a PostgreSQL of its own, and its address."""
    clean = {name: value for name, value in os.environ.items() if name not in ("DATABASE_URL", "SECRET_KEY")}
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "manage.py", "up", "--port", str(port), "--data", str(tmp_path)],
        cwd=ROOT,
        env={**clean, "ACCORD_DATA": str(tmp_path), "ACCORD_EMBEDDED_DATABASE": ""},
        stderr=subprocess.PIPE,
        text=True,
    )
    address = f"http://127.0.0.1:{port}"
    try:
        wait_until(lambda: process.poll() is not None or answers(f"{address}/healthz"))
        assert process.poll() is None, process.stderr.read()
        yield process, address
    finally:
        process.kill()
        process.wait()
        for left in processes_of(tmp_path):
            left.kill()


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=2) as response:
            return response.status == 200
    except OSError:
        return False


def wait_until(happens, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)


def test_it_serves_pages_with_their_styles_and_ctrl_c_ends_every_process(accord, tmp_path):
    process, address = accord
    with urllib.request.urlopen(address) as response:
        page = response.read().decode()
        assert "sign-in" in response.url
    for name in re.findall(r'(?:href|src)="(/static/[^"]+)"', page):
        assert answers(address + name), name
    assert len(processes_of(tmp_path)) > 5

    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=40) == 0
    wait_until(lambda: not processes_of(tmp_path), seconds=10)


def test_a_service_that_dies_is_started_again(accord, tmp_path):
    process, address = accord
    assert any("Accord runs at" in line for line in process.stderr)  # a death before that ends the start instead
    gunicorns = [p for p in processes_of(tmp_path) if "gunicorn" in p.cmdline()]
    master = next(p for p in gunicorns if p.ppid() not in {other.pid for other in gunicorns})
    master.kill()
    wait_until(lambda: not master.is_running() or master.status() == psutil.STATUS_ZOMBIE, seconds=10)
    wait_until(lambda: answers(f"{address}/healthz"))
