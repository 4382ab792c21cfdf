"""Real processes around a test's database: Celery workers over a real broker."""

import importlib
import os
import pkgutil
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from celery import current_app
from django.conf import settings
from django.db import connection, connections
from kombu import pools
from psycopg.conninfo import make_conninfo

from config.runtime import broker
from config.runtime.supervisor import CELERY, celery_worker
from tests.forks import Forked
from training import learner
from training.run_round import probe_model, process

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 500  # seconds until a waiting test fails; no speed is tested


def wait_until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"still not so: {what}"
        time.sleep(0.2)


def database_url() -> str:
    """The test's own database, for other processes."""
    used = connection.settings_dict
    parts = {"dbname": used["NAME"], "user": used["USER"], "password": used["PASSWORD"], "host": used["HOST"]}
    return make_conninfo("", **{name: value for name, value in {**parts, "port": used["PORT"]}.items() if value})


@contextmanager
def redis_server(folder: Path) -> Iterator[str]:
    """The address of a Redis of the test's own."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [shutil.which("redis-server") or "", "--port", str(port), "--save", "", "--dir", str(folder)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)

    def answers() -> bool:
        with socket.socket() as knock:
            return knock.connect_ex(("127.0.0.1", port)) == 0

    try:
        wait_until(answers, "Redis answers")
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        server.terminate()
        server.wait()


@contextmanager
def using_broker(broker_url: str) -> Iterator[None]:
    """Send this process's messages over that broker, too."""
    broker_url = broker.address(broker_url)
    changed = {
        "broker_url": broker_url,
        "broker_transport_options": broker.transport_options(broker_url, database_url()),
    }
    assert current_app.conf.broker_url  # loads the settings; changes before that would be lost
    changes = current_app.conf.changes
    before = {name: changes[name] for name in changed if name in changes}
    changes.update(changed)
    forget_connections()
    try:
        yield
    finally:
        for name in changed:
            changes.pop(name)
        changes.update(before)
        forget_connections()


def keep_messages_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use a broker in this process's memory."""
    assert current_app.conf.broker_url  # loads the settings; changes before that would be lost
    for name, value in {"broker_url": "memory://localhost", "broker_transport_options": {}}.items():
        monkeypatch.setitem(current_app.conf.changes, name, value)


def forget_connections() -> None:
    """Celery keeps its connections to the broker in more than one place."""
    pools.reset()
    current_app._after_fork()


class Worker:
    """A Celery worker as the supervisor starts it."""

    def __init__(self, broker_url: str, queue: str, log: Path) -> None:
        environment = {
            "ACCORD_DATA": str(settings.DATA_DIR),
            "DATABASE_URL": database_url(),
            "CELERY_BROKER_URL": broker_url,
            "SECRET_KEY": settings.SECRET_KEY,
            "LOG_LEVEL": "INFO",
        }
        self.log = log
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                celery_worker(queue, "test"),
                cwd=ROOT,
                env={**os.environ, **environment},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def is_ready(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        return " ready." in self.log.read_text()

    def end(self, how: signal.Signals) -> int:
        self.process.send_signal(how)
        return self.process.wait(PATIENCE)

    def kill(self) -> None:
        self.end(signal.SIGKILL)


class ForkedWorker:
    """The same worker as a fork of the test's process, whose programs are forks again (`forked.start`).

    A new worker and each new program import Django, torch and transformers for six seconds of CPU time and more.
    """

    def __init__(self, queue: str, log: Path) -> None:
        self.log = log
        for module in pkgutil.iter_modules(learner.__path__):
            importlib.import_module(f"training.learner.{module.name}")
        forget_connections()  # or the fork would send over them, too
        connections.close_all()
        with log.open("ab") as output:
            self.process = Forked(lambda: run_worker(queue), output)

    is_ready = Worker.is_ready
    end = Worker.end

    def programs(self) -> list[psutil.Process]:
        """Return the programs that it runs now."""
        return psutil.Process(self.process.pid).children()

    def kill(self) -> None:
        """Kill the worker with its programs, and wait until they are gone.

        A forked program shares the sockets of the worker's database connections. They stay open as long as it runs, and
        the test database could not be dropped.
        """
        self.process.send_signal(signal.SIGSTOP)  # or it could start another program
        programs = self.programs()
        self.end(signal.SIGKILL)
        for program in programs:
            with suppress(psutil.NoSuchProcess):
                program.kill()
        wait_until(lambda: not any(map(is_alive, programs)), "the worker's programs are gone")


def is_alive(process: psutil.Process) -> bool:
    """Return whether the process has not ended; a zombie has, and holds no files."""
    with suppress(psutil.NoSuchProcess):
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return False


def run_worker(queue: str) -> None:
    """Run a worker of this queue in this process, a fork, until it is ended."""
    from tests.training import forked

    process.start, probe_model.start = forked.start, forked.start_check
    current_app.worker_main(celery_worker(queue, "test")[len(CELERY) - 1 :])


@contextmanager
def worker(broker_url: str, queue: str, log: Path, is_forked: bool = False) -> Iterator[Any]:
    """A worker that is ready, and gone afterwards."""
    started = ForkedWorker(queue, log) if is_forked else Worker(broker_url, queue, log)
    try:
        wait_until(lambda: started.is_ready, f"the {queue} worker is ready")
        yield started
    finally:
        if started.process.poll() is None:
            started.kill()
