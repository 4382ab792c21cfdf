"""Engine process of the served checkpoint: `transformers serve`, or another command such as vLLM's.

An example of another command is `vllm serve {model} --host {host} --port {port}`. After a promotion or a roll-back the
engine is restarted with the checkpoint that is served now.
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
POLL_SECONDS = 2.0  # between two looks at which checkpoint is served
DRAIN_SECONDS = 30.0  # a restart waits this long for requests that are being answered


def command_line(engine: str, model: str, host: str, port: int) -> list[str]:
    """Return the engine's command line for this model. Raise Invalid if it cannot be run here."""
    try:
        words = [word.format(model=model, host=host, port=port) for word in shlex.split(engine)]
    except (ValueError, KeyError, IndexError) as error:
        raise Invalid(
            _("The engine's command cannot be parsed (%(error)s): use {model}, {host} and {port}.") % {"error": error}
        ) from error
    search_path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    program = shutil.which(words[0], path=search_path) if words else None
    if program is None:
        raise Invalid(_('There is no program "%(name)s" on this machine.') % {"name": engine.partition(" ")[0]})
    return [program, *words[1:]]


def free_port() -> int:
    """Return a port of this machine that is free at the moment."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


class Engine:
    """Engine process for one model at a time; requests wait while it is restarted with another model."""

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
        """Start or restart the process with this model, after the current requests. Do nothing if it runs with it."""
        if self.process is not None and self.process.poll() is None and model == self.model:
            return
        with self._changed:
            self._changing = True
            self._changed.wait_for(lambda: self._requests == 0, DRAIN_SECONDS)
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
        """Return whether the engine answers."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=5)
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    @contextmanager
    def in_use(self, timeout: float) -> Iterator[bool]:
        """Reserve the engine for a request. Yield whether it answered within `timeout` seconds."""
        deadline = time.monotonic() + timeout
        is_up = False
        while not is_up:
            with self._changed:
                if not self._changed.wait_for(lambda: not self._changing, max(0.0, deadline - time.monotonic())):
                    break
                self._requests += 1
            is_up = self.is_up()
            if not is_up:
                self._leave()  # a request that waits must not keep a promotion waiting
                if time.monotonic() >= deadline:
                    break
                time.sleep(0.2)
        try:
            yield is_up
        finally:
            if is_up:
                self._leave()

    def _leave(self) -> None:
        with self._changed:
            self._requests -= 1
            self._changed.notify_all()

    def stop(self) -> None:
        if self.process is not None:
            end(self.process)
            self.process = None


def follow(project: Project, engine: Engine, report: Callable[[str], None], is_over: Callable[[], bool]) -> None:
    """Run the engine with the project's served checkpoint, and follow promotions, until `is_over` returns True.

    Raises Conflict if there is no served checkpoint at the start, or it is refused or not checked yet.
    """
    served: Checkpoint | None = checkpoints.served(project)
    checkpoints.check_usable(checkpoints.served(project))
    try:
        while not is_over():
            if served is not None:
                if served.path != engine.model:
                    report(f"{served} is served from {served.path}")
                engine.serve(served.path)
            time.sleep(POLL_SECONDS)
            served = _served_or_last(project, served)
    finally:
        engine.stop()


def _served(project: Project) -> Checkpoint | None:
    return project.checkpoints.filter(is_served=True).select_related("source").first()


def _served_or_last(project: Project, last: Checkpoint | None) -> Checkpoint | None:
    """Return the served checkpoint; while the database does not answer, the last known one."""
    try:
        return _served(project)
    except (OperationalError, InterfaceError):
        close_old_connections()
        return last
