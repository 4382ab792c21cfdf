"""The served checkpoint behind an OpenAI-compatible API, by an engine that exists: no engine of our own.

The engine is a process that is given the model's folder: `transformers serve` unless another is named, such as
`vllm serve {model} --host {host} --port {port}`. When another checkpoint is promoted, or one is rolled back, the
engine is started anew with that one.
"""

import http.client
import os
import shlex
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from django.db import InterfaceError, OperationalError, close_old_connections
from django.utils.translation import gettext as _

from feedback.errors import Invalid
from feedback.models import Project
from training import checkpoints
from training.models import Checkpoint
from training.run_round.process import DIE_WITH_PARENT, SECRETS, end

TRANSFORMERS = "transformers serve {model} --host {host} --port {port}"
LOOK_EVERY = 2.0  # seconds
LAST_ANSWERS = 30.0  # seconds that a promotion waits for answers under way


def command_line(engine: str, model: str, host: str, port: int) -> list[str]:
    """The engine's command for this model. Raises Invalid when it cannot be run here."""
    try:
        words = [word.format(model=model, host=host, port=port) for word in shlex.split(engine)]
    except (ValueError, KeyError, IndexError) as error:
        raise Invalid(
            _("The engine's command cannot be read (%(error)s): use {model}, {host} and {port}.") % {"error": error}
        ) from error
    beside_python = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    program = shutil.which(words[0], path=beside_python) if words else None
    if program is None:
        raise Invalid(_("There is no program «%(name)s» on this machine.") % {"name": engine.partition(" ")[0]})
    return [program, *words[1:]]


def free_port() -> int:
    """A port of this machine that nobody uses at the moment."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


class Engine:
    """One engine process at a time, for one model."""

    def __init__(self, engine: str, host: str, port: int) -> None:
        self.engine, self.host, self.port = engine, host, port
        self.model = ""
        self.since = 0  # Unix seconds
        self.process: subprocess.Popen[bytes] | None = None
        self._requests = 0
        self._changed = threading.Condition()
        self._changing = False

    @property
    def is_transformers(self) -> bool:
        return self.engine.split()[:2] == ["transformers", "serve"]

    def serve(self, model: str) -> None:
        """Serve this model; nothing happens when it is served already. Requests under way are answered first."""
        if self.process is not None and self.process.poll() is None and model == self.model:
            return
        with self._changed:
            self._changing = True
            self._changed.wait_for(lambda: self._requests == 0, LAST_ANSWERS)
        self.stop()
        command = command_line(self.engine, model, self.host, self.port)
        environment = {name: value for name, value in os.environ.items() if name not in SECRETS}
        wrapper = [sys.executable, str(DIE_WITH_PARENT), str(os.getpid())]
        self.process = subprocess.Popen([*wrapper, *command], env=environment, start_new_session=True)
        self.model, self.since = model, int(time.time())
        with self._changed:
            self._changing = False
            self._changed.notify_all()

    def is_up(self) -> bool:
        """Whether the engine answers."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=5)
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    @contextmanager
    def in_use(self, patience: float) -> Iterator[bool]:
        """Keep the engine for a request; says whether it came up within so many seconds."""
        deadline = time.monotonic() + patience
        with self._changed:
            self._changed.wait_for(lambda: not self._changing, patience)
            self._requests += 1
        try:
            while not (is_up := not self._changing and self.is_up()) and time.monotonic() < deadline:
                if self._changing:
                    break
                time.sleep(0.2)
            yield is_up
        finally:
            with self._changed:
                self._requests -= 1
                self._changed.notify_all()

    def stop(self) -> None:
        if self.process is not None:
            end(self.process)
            self.process = None


def follow(project: Project, engine: Engine, report: Callable[[str], None], over: Callable[[], bool]) -> None:
    """Serve whatever checkpoint of the project is served, until `over`.

    Raises Conflict when none is at the start, or one that is refused or not checked yet.
    """
    served: Checkpoint | None = checkpoints.served(project)
    checkpoints.check_usable(checkpoints.served(project))
    try:
        while not over():
            if served is not None:
                if served.path != engine.model:
                    report(f"{served} is served from {served.path}")
                engine.serve(served.path)
            time.sleep(LOOK_EVERY)
            served = _look_again(project, served)
    finally:
        engine.stop()


def _served(project: Project) -> Checkpoint | None:
    return project.checkpoints.filter(is_served=True).select_related("source").first()


def _look_again(project: Project, known: Checkpoint | None) -> Checkpoint | None:
    """What is served now; while the database is away, what was served last."""
    try:
        return _served(project)
    except (OperationalError, InterfaceError):
        close_old_connections()
        return known
