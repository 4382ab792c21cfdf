"""Starts Accord's processes, restarts one that dies, and stops them all."""

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

PATIENCE = 60  # seconds for the first answer of the web service
DATABASE = "database"  # the embedded PostgreSQL, which runs before all others and ends after them
GRACE = 25  # seconds between SIGTERM and SIGKILL: a program saves its state and stops within this
LARGEST_LOG = 20 * 2**20  # bytes
QUICK_DEATH = 10  # seconds: a service that dies younger than this three times in a row is not restarted again


@dataclass
class Service:
    """One process, its log, and how often it died young."""

    name: str
    command: list[str]
    log: Path
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    quick_deaths: int = 0
    stop_with: int = signal.SIGTERM

    def start(self) -> None:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as output:
            # A session of its own: Ctrl-C in the terminal reaches the supervisor alone, which stops in order.
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
        """Keep the log and one before it. The service appends, and so writes on at the start of the emptied file."""
        if self.log.exists() and self.log.stat().st_size > LARGEST_LOG:
            shutil.copyfile(self.log, self.log.with_name(f"{self.log.name}.1"))
            os.truncate(self.log, 0)

    def kill_group(self) -> None:
        """End whatever the service left behind in its session."""
        if self.process is not None:
            try:
                os.killpg(self.process.pid, signal.SIGKILL)
            except ProcessLookupError:
                return


def _die_with_parent() -> None:
    # PR_SET_PDEATHSIG: even a supervisor that is killed outright leaves nothing running.
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


@dataclass
class Supervisor:
    """Runs services until a signal, a failure, or the end of the work that was to be done meanwhile."""

    services: list[Service]
    report: Callable[[str], None]
    stopping: bool = field(default=False, init=False)
    tending: bool = field(default=False, init=False)
    was_interrupted: bool = field(default=False, init=False)

    def run(self, address: str, work: Callable[[], None]) -> None:
        """Start everything, do `work` once the web answers at `address`, and stop everything.

        Raises CommandError when a service does not come up. Every process is ended on the way out.
        """
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._interrupt)
        # Whatever `work` is busy with, a service that dies is started again at once.
        signal.signal(signal.SIGCHLD, lambda number, frame: self.tend())
        try:
            for service in self.services:
                if service.process is None:
                    service.start()
            self._wait_for_web(address)
            work()
        except KeyboardInterrupt:
            self.was_interrupted = True
            self.report("stopping …")
        finally:
            self.stop()

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if not self.stopping:  # a second Ctrl-C must not leave processes behind half-way through stop()
            self.stopping = True
            raise KeyboardInterrupt

    def _wait_for_web(self, address: str) -> None:
        web = next((service for service in self.services if service.name == "web"), None)
        deadline = time.monotonic() + PATIENCE
        while web is not None and not _answers(address):
            assert web.process is not None
            if web.quick_deaths or web.process.poll() is not None or time.monotonic() > deadline:
                raise CommandError(f"the web service did not start; the end of {web.log}:\n{_tail(web.log)}")
            time.sleep(0.1)

    def watch(self) -> None:
        """Tend the services until a signal."""
        while True:
            self.tend()
            time.sleep(1)

    def tend(self) -> None:
        """Start again what has died. Raises CommandError for a service that keeps dying."""
        if self.stopping or self.tending:  # a signal can arrive while the last one is still seen to
            return
        self.tending = True
        try:
            for service in self.services:
                service.rotate_log()
                if service.process is not None and service.process.poll() is not None:
                    self._restart(service)
        finally:
            self.tending = False

    def _restart(self, service: Service) -> None:
        assert service.process is not None
        service.kill_group()
        lived = time.monotonic() - service.started
        service.quick_deaths = service.quick_deaths + 1 if lived < QUICK_DEATH else 0
        status = service.process.returncode
        if service.quick_deaths >= 3:
            raise CommandError(
                f"the {service.name} service keeps dying (status {status}); the end of {service.log}:\n"
                f"{_tail(service.log)}"
            )
        self.report(f"the {service.name} service ended (status {status}) and is started again")
        service.start()
        if service.name == DATABASE:  # the others would die, and be given up, while it recovers
            with suppress(SetupError):  # it died again: the next look counts that
                postgres.wait_until_ready(settings.DATA_DIR, service.process)
                self.report("the database answers again")

    def stop(self) -> None:
        """End all, the database last: the others write down where they stopped."""
        self.stopping = True
        self._end([service for service in self.services if service.name != DATABASE])
        self._end([service for service in self.services if service.name == DATABASE])

    def _end(self, services: list[Service]) -> None:
        """SIGTERM to all, then SIGKILL to the sessions of those that have not ended within the grace."""
        for service in services:
            service.signal(service.stop_with)
        deadline = time.monotonic() + GRACE
        for service in services:
            if service.process is not None:
                try:
                    service.process.wait(max(0.1, deadline - time.monotonic()))
                except subprocess.TimeoutExpired:
                    self.report(f"the {service.name} service did not end in time and is killed")
                service.kill_group()
                service.process.wait()


# Without the proxies of the environment: they are for the world outside, and this is ourselves.
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
    """The command of a worker on this queue.

    Solo: light tasks are short, the GPU's only waits for another process, and a pool would outlive a killed worker.
    Workers tell each other nothing: PGMQ cannot broadcast, and each attempt is an error in its log and PostgreSQL's.
    """
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    return [*CELERY, "worker", "-Q", queue, "-n", f"{queue}@{host}", "-P", pool, "-l", "INFO", *quiet]


def services_named(names: list[str], host: str, port: int) -> list[Service]:
    """The processes of those names: `web`, `default` and `gpu` workers, `beat`. Raises CommandError."""
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
        raise CommandError(f"--only names «{unknown[0]}»: the services are {', '.join(commands)}.")
    return [*embedded_database(), *(Service(name, commands[name], logs / f"{name}.log") for name in names)]


def embedded_database() -> list[Service]:
    """The PostgreSQL that was started before Django, if it is ours."""
    if postgres.runner is None:
        return []
    service = Service(DATABASE, postgres.command(settings.DATA_DIR, is_tended=True), postgres.log(settings.DATA_DIR))
    service.process, service.stop_with, service.started = postgres.runner, signal.SIGINT, time.monotonic()
    return [service]
