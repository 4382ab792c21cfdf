"""`manage.py up` as an operator runs it: it answers, and Ctrl-C ends every process."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import psutil
import psycopg
import pytest

from config.runtime import postgres, supervisor
from config.runtime.postgres_server import cluster_of, is_running, postmaster
from tests.config.test_setup import free_port

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.process


def processes_of(folder: Path) -> list[psutil.Process]:
    """Return all processes that work on this data folder, whoever started them."""

    def uses_folder(process: psutil.Process) -> bool:
        try:
            return str(folder) in " ".join(process.cmdline()) or process.environ().get("ACCORD_DATA") == str(folder)
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            return False

    return [process for process in psutil.process_iter() if process.pid != os.getpid() and uses_folder(process)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Return one data folder for both starts: the second finds the database and the static files of the first."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture
def accord(folder: Path):
    """Yield a running `up` on the folder, with its own PostgreSQL, and its address."""
    clean = {name: value for name, value in os.environ.items() if name not in ("DATABASE_URL", "SECRET_KEY")}
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "manage.py", "up", "--port", str(port), "--data", str(folder)],
        cwd=ROOT,
        env={**clean, "ACCORD_DATA": str(folder), "ACCORD_EMBEDDED_DATABASE": ""},
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
        for left in processes_of(folder):
            left.kill()


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=20) as response:
            return response.status == 200
    except OSError:
        return False


def wait_until(happens, seconds: float = 240) -> None:
    """Wait for a state. The limit only ends a hopeless wait: a first start takes over a minute on a busy machine."""
    deadline = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < deadline, f"not reached in {seconds} s"
        time.sleep(0.1)


@pytest.mark.full
def test_a_first_start_serves_pages_prints_the_command_for_an_account_and_ends_all_at_ctrl_c(accord, folder):
    process, address = accord
    with urllib.request.urlopen(address) as response:
        page = response.read().decode()
        assert "sign-in" in response.url
    for name in re.findall(r'(?:href|src)="(/static/[^"]+)"', page):
        assert answers(address + name), name
    assert len(processes_of(folder)) > 5
    make_the_first_account(process, folder)
    with psycopg.connect(postgres.address(folder)) as connection:
        assert connection.execute("SELECT username FROM feedback_user").fetchall() == [("first",)]

    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=240) == 0
    wait_until(lambda: not processes_of(folder))


def make_the_first_account(process: subprocess.Popen[str], folder: Path) -> None:
    """Run the command that the terminal prints, from an environment that does not name the data folder."""
    line = next(line for line in process.stderr if "there is no account yet" in line)
    command = shlex.split(line.partition("`")[2].partition("`")[0])
    assert command[:2] == ["python3", "manage.py"]
    clean = {name: value for name, value in os.environ.items() if name not in ("DATABASE_URL", "ACCORD_DATA")}
    account = ["--noinput", "--username", "first", "--email", "first@example.org"]
    environment = {**clean, "DJANGO_SUPERUSER_PASSWORD": "a long password", "ACCORD_EMBEDDED_DATABASE": ""}
    subprocess.run([sys.executable, *command[1:], *account], cwd=ROOT, env=environment, check=True)


@pytest.mark.full
def test_a_service_and_a_database_that_die_are_started_again_and_the_terminal_reports_it(accord, folder):
    process, address = accord
    assert any("Accord runs at" in line for line in process.stderr)  # a death before that ends the start instead
    server = postmaster(cluster_of(folder))
    server.kill()
    assert any("database service ended" in line for line in process.stderr)
    assert any("the database answers again" in line for line in process.stderr)
    wait_until(lambda: process.poll() is not None or answers(f"{address}/healthz"))
    assert process.poll() is None, process.stderr.read()
    assert postmaster(cluster_of(folder)) != server

    gunicorns = [p for p in processes_of(folder) if "gunicorn" in p.cmdline()]
    master = next(p for p in gunicorns if p.ppid() not in {other.pid for other in gunicorns})
    master.kill()
    assert any("web service ended" in line for line in process.stderr)
    wait_until(lambda: process.poll() is not None or answers(f"{address}/healthz"))
    assert process.poll() is None, process.stderr.read()

    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=240) == 0
    wait_until(lambda: not processes_of(folder))
    assert not is_running(folder)


def test_a_large_log_is_moved_while_the_service_goes_on_writing(tmp_path, monkeypatch):
    monkeypatch.setattr(supervisor, "MAX_LOG_BYTES", 100)
    service = supervisor.Service("talker", ["sh", "-c", "while :; do echo a line; sleep 0.01; done"], tmp_path / "log")
    service.start()
    try:
        wait_until(lambda: service.log.stat().st_size > 200)
        service.rotate_log()
        assert service.log.with_name("log.1").stat().st_size > 200
        wait_until(lambda: 0 < service.log.stat().st_size < 200)
    finally:
        service.kill_group()
        service.process.wait()
