"""Supervisor of Accord's processes: starts them, restarts one that dies, and stops them all."""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from django.conf import settings
from django.core.management.base import CommandError

from config.runtime import postgres
from config.runtime.errors import SetupError
from config.runtime.hosts import bracketed

START_TIMEOUT = 300  # seconds until the first answer of the web service: a busy machine takes minutes
DATABASE = "database"  # the embedded PostgreSQL: started before the other services, stopped after them
STOP_TIMEOUT = 25  # seconds between SIGTERM and SIGKILL: a program saves its state within this time
MAX_LOG_BYTES = 20 * 2**20
MIN_UPTIME = 10  # seconds: a service that ends sooner MAX_EARLY_EXITS times in a row is not restarted again
MAX_EARLY_EXITS = 3


@dataclass
class Service:
    """One process, its log, and how often in a row it ended soon after its start."""

    name: str
    command: list[str]
    log: Path
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    early_exits: int = 0
    stop_signal: int = signal.SIGTERM

    def start(self) -> None:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as output:
            # A new session: Ctrl-C in the terminal reaches only the supervisor, which stops the services in order.
            self.process = subprocess.Popen(
                self.command,
                cwd=settings.BASE_DIR,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,
            )
        self.started = time.monotonic()

    def signal(self, number: int) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)

    def rotate_log(self) -> None:
        """Move a large log to `.1`. The service has the file open for appending and goes on in the emptied file."""
        if self.log.exists() and self.log.stat().st_size > MAX_LOG_BYTES:
            shutil.copyfile(self.log, self.log.with_name(f"{self.log.name}.1"))
            os.truncate(self.log, 0)

    def kill_group(self) -> None:
        """Kill every process that is left in the service's session."""
        if self.process is not None:
            try:
                os.killpg(self.process.pid, signal.SIGKILL)
            except ProcessLookupError:
                return


def _die_with_parent() -> None:
    # PR_SET_PDEATHSIG: nothing stays running even if the supervisor is killed with SIGKILL.
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


@dataclass
class Supervisor:
    """Runner of services until a signal, a failure, or the end of the work to be done meanwhile."""

    services: list[Service]
    report: Callable[[str], None]
    stopping: bool = field(default=False, init=False)
    restarting: bool = field(default=False, init=False)
    was_interrupted: bool = field(default=False, init=False)

    def run(self, address: str, work: Callable[[], None]) -> None:
        """Start the services, call `work` once the web service answers at `address`, and stop everything.

        Raises CommandError if a service does not start. No process is left running, not even after an error.
        """
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._interrupt)
        # A service that dies is restarted at once, even while `work` runs.
        signal.signal(signal.SIGCHLD, lambda number, frame: self.restart_ended())
        try:
            for service in self.services:
                if service.process is None:
                    service.start()
            self._wait_for_web(address)
            work()
        except KeyboardInterrupt:
            self.was_interrupted = True
            self.report("stopping ...")
        finally:
            self.stop()

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if not self.stopping:  # a second Ctrl-C must not interrupt stop() and leave processes running
            self.stopping = True
            raise KeyboardInterrupt

    def _wait_for_web(self, address: str) -> None:
        web = next((service for service in self.services if service.name == "web"), None)
        deadline = time.monotonic() + START_TIMEOUT
        while web is not None and not _answers(address):
            assert web.process is not None
            if web.early_exits or web.process.poll() is not None or time.monotonic() > deadline:
                raise CommandError(f"the web service did not start; the end of {web.log}:\n{_tail(web.log)}")
            time.sleep(0.1)

    def watch(self) -> None:
        """Restart services that end, until a signal."""
        while True:
            self.restart_ended()
            time.sleep(1)

    def restart_ended(self) -> None:
        """Restart services that have ended. Raises CommandError for one that ends again and again."""
        if self.stopping or self.restarting:  # a signal can arrive while the last one is being handled
            return
        self.restarting = True
        try:
            for service in self.services:
                service.rotate_log()
                if service.process is not None and service.process.poll() is not None:
                    self._restart(service)
        finally:
            self.restarting = False

    def _restart(self, service: Service) -> None:
        assert service.process is not None
        service.kill_group()
        uptime = time.monotonic() - service.started
        service.early_exits = service.early_exits + 1 if uptime < MIN_UPTIME else 0
        status = service.process.returncode
        if service.early_exits >= MAX_EARLY_EXITS:
            raise CommandError(
                f"the {service.name} service ends again and again (status {status}); the end of {service.log}:\n"
                f"{_tail(service.log)}"
            )
        self.report(f"the {service.name} service ended (status {status}) and is started again")
        service.start()
        if service.name == DATABASE:  # without it the other services would end too often and not be restarted
            with suppress(SetupError):  # it ended again: the next call counts that
                postgres.wait_until_ready(settings.DATA_DIR, service.process)
                self.report("the database answers again")

    def stop(self) -> None:
        """Stop all services, the database last: the others write their state to it."""
        self.stopping = True
        self._end([service for service in self.services if service.name != DATABASE])
        self._end([service for service in self.services if service.name == DATABASE])

    def _end(self, services: list[Service]) -> None:
        """Send the stop signal to all services, and SIGKILL to the sessions of those that do not end in time."""
        for service in services:
            service.signal(service.stop_signal)
        deadline = time.monotonic() + STOP_TIMEOUT
        for service in services:
            if service.process is not None:
                try:
                    service.process.wait(max(0.1, deadline - time.monotonic()))
                except subprocess.TimeoutExpired:
                    self.report(f"the {service.name} service did not end in time and is killed")
                service.kill_group()
                service.process.wait()


# Proxies of the environment are for other hosts; this address is our own.
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def _answers(address: str) -> bool:
    try:
        with _direct.open(f"{address}/healthz", timeout=2) as response:
            return response.status == 200
    except (urllib.error.URLError, OSError):
        return False


def _tail(path: Path, lines: int = 15) -> str:
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])


CELERY = [sys.executable, "-m", "celery", "--app", "config.celery", "--quiet"]


def celery_worker(queue: str, host: str, pool: str = "solo") -> list[str]:
    """Return the command of a Celery worker of this queue.

    The pool is "solo": tasks of `default` are short, the one of `gpu` waits for another process, and the processes of a
    pool would outlive a killed worker. Gossip, mingle and heartbeat are off: PGMQ cannot broadcast, and each attempt
    would be an error in the logs of the worker and of PostgreSQL.
    """
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    return [*CELERY, "worker", "-Q", queue, "-n", f"{queue}@{host}", "-P", pool, "-l", "INFO", *quiet]


def services_named(names: list[str], host: str, port: int) -> list[Service]:
    """Return the services of these names (web, default, gpu, beat). Raises CommandError for another name."""
    python, logs = sys.executable, settings.DATA_DIR / "logs"
    commands = {
        "web": [
            *(python, "-m", "gunicorn", "config.wsgi", "--bind", f"{bracketed(host)}:{port}"),
            *(
                "--workers",
                str(settings.WEB_WORKERS),
                "--preload",
                "--worker-class",
                "config.runtime.web_worker.BufferedThreadWorker",
            ),
            *("--threads", str(settings.WEB_THREADS), "--keep-alive", "30", "--timeout", "120", "--no-control-socket"),
        ],
        "default": celery_worker("default", "%h"),
        "gpu": celery_worker("gpu", "%h"),
        "beat": [*CELERY, "beat", "-s", str(settings.DATA_DIR / "beat"), "-l", "INFO"],
    }
    if unknown := [name for name in names if name not in commands]:
        raise CommandError(f'--only names "{unknown[0]}": the services are {", ".join(commands)}.')
    return [*embedded_database(), *(Service(name, commands[name], logs / f"{name}.log") for name in names)]


def embedded_database() -> list[Service]:
    """Return the embedded PostgreSQL, which was started before Django, as a service; no service if it is not used."""
    if postgres.runner is None:
        return []
    service = Service(
        DATABASE, postgres.command(settings.DATA_DIR, is_supervised=True), postgres.log(settings.DATA_DIR)
    )
    service.process, service.stop_signal, service.started = postgres.runner, signal.SIGINT, time.monotonic()
    return [service]
