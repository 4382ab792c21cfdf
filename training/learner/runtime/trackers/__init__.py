"""Trackers: tools outside of Accord that show the curves and samples of a job, such as MLflow.

One module of this folder per tracker, which registers its class with `@tracker`. A class takes a `TrackedJob` and has
the methods of `Tracker`. `JobDirectory` calls them where it writes metrics and samples, so no program knows of them.

A tracker cannot fail or delay a job: after an error it is left out, with a sentence in the log. One that may wait for a
network runs in a thread of its own. Only the first process has trackers.
"""

import importlib
import importlib.util
import os
import pkgutil
import queue
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

Row = dict[str, Any]

MAX_WAITING = 10_000  # calls that wait for a tracker before it is left out
SECONDS_TO_FINISH = 60.0  # at the end of a job
SECONDS_TO_STOP = 4.0  # of a stopped program, which gets SIGKILL after some seconds


class TrackedJob(NamedTuple):
    """The job, as a tracker describes it."""

    path: Path  # the job directory
    program: str
    name: str  # for people
    settings: Mapping[str, Any]


class Tracker(Protocol):
    """Writer of a job's curves. It is made before the first step, and again when the job is resumed."""

    def resume_after(self, step: int) -> None:
        """Prepare for the steps after this one, which a run before a resume may have written already."""

    def write_metrics(self, step: int, at: float, values: Mapping[str, float]) -> None:
        """Write the scalars of a step. at: Unix time."""

    def write_samples(self, step: int, at: float, rows: Sequence[Row]) -> None:
        """Write rows of samples_at_steps.jsonl."""

    def close(self, is_finished: bool) -> None:
        """Write what is left. is_finished: the job has its result; otherwise it may be resumed."""


@dataclass(frozen=True)
class Registered:
    """A registered tracker."""

    make: Callable[[TrackedJob], Tracker]
    is_configured: Callable[[Mapping[str, str]], bool]  # by the environment variables
    package: str  # that it needs
    variables: str  # that configure it, for messages
    waits: bool  # whether it may wait for a network: it runs in a thread


TRACKERS: dict[str, Registered] = {}


def tracker(
    name: str, *, is_configured: Callable[[Mapping[str, str]], bool], package: str, variables: str, waits: bool
) -> Callable[[Callable[[TrackedJob], Tracker]], Callable[[TrackedJob], Tracker]]:
    """Register a tracker's class under the name that messages have."""

    def register(make: Callable[[TrackedJob], Tracker]) -> Callable[[TrackedJob], Tracker]:
        TRACKERS[name] = Registered(make, is_configured, package, variables, waits)
        return make

    return register


class Trackers:
    """The trackers of a job that are configured and have not failed."""

    def __init__(self, job: TrackedJob) -> None:
        close_all(is_finished=False)  # those of an earlier job of this process, which ended with an error
        self._runners: list[Runner] = []
        for name, registered in TRACKERS.items():
            if registered.is_configured(os.environ):
                if importlib.util.find_spec(registered.package) is None:
                    say(
                        f"{name} is configured ({registered.variables}), but the package {registered.package} is not "
                        f"installed, so the job runs without it: pip install {registered.package}"
                    )
                else:
                    self._runners.append((ThreadRunner if registered.waits else Runner)(name, registered.make, job))
        _open.append(self)

    def resume_after(self, step: int) -> None:
        self._call("resume_after", step)

    def write_metrics(self, step: int, at: float, values: Mapping[str, float]) -> None:
        self._call("write_metrics", step, at, values)

    def write_samples(self, step: int, at: float, rows: Sequence[Row]) -> None:
        self._call("write_samples", step, at, rows)

    def close(self, is_finished: bool) -> None:
        """Close all trackers; they get SECONDS_TO_FINISH together, or SECONDS_TO_STOP."""
        if self in _open:
            _open.remove(self)
        self._call("close", is_finished)
        deadline = time.monotonic() + (SECONDS_TO_FINISH if is_finished else SECONDS_TO_STOP)
        for runner in self._runners:
            runner.wait(deadline)
        self._runners = []

    def _call(self, method: str, *arguments: Any) -> None:
        for runner in self._runners:
            runner.call(method, arguments)


class Runner:
    """Caller of one tracker, which it drops after an error."""

    def __init__(self, name: str, make: Callable[[TrackedJob], Tracker], job: TrackedJob) -> None:
        self.name, self._make, self._job = name, make, job
        self._tracker: Tracker | None = None
        self._has_failed = False

    def call(self, method: str, arguments: tuple[Any, ...]) -> None:
        if self._has_failed:
            return
        try:
            if self._tracker is None:
                self._tracker = self._make(self._job)
            getattr(self._tracker, method)(*arguments)
        except Exception as error:  # noqa: BLE001 (another project's code: none of its errors may end the job)
            self.fail(f"{type(error).__name__}: {' '.join(str(error).split())[:500]}")

    def fail(self, reason: str) -> None:
        self._has_failed = True
        say(f"{self.name} failed, so the job goes on without it: {reason}")

    def wait(self, deadline: float) -> None:
        """Return when all calls are done. deadline: a time.monotonic() at which it returns anyway."""


class ThreadRunner(Runner):
    """Runner whose calls are made in a thread, in their order."""

    def __init__(self, name: str, make: Callable[[TrackedJob], Tracker], job: TrackedJob) -> None:
        super().__init__(name, make, job)
        self._calls: queue.Queue[tuple[str, tuple[Any, ...]] | None] = queue.Queue(MAX_WAITING)
        self._thread = threading.Thread(target=self._work, name=f"tracker {name}", daemon=True)
        self._thread.start()

    def call(self, method: str, arguments: tuple[Any, ...]) -> None:
        if self._has_failed:
            return
        try:
            self._calls.put_nowait((method, arguments))
            if method == "close":
                self._calls.put_nowait(None)
        except queue.Full:
            self.fail(f"{MAX_WAITING} calls are waiting for it")

    def wait(self, deadline: float) -> None:
        if not self._has_failed:
            self._thread.join(max(0.0, deadline - time.monotonic()))
            if self._thread.is_alive():
                self.fail("it did not end in time, so its last lines may be missing")

    def _work(self) -> None:
        while not self._has_failed and (call := self._calls.get()) is not None:
            super().call(*call)


_open: list[Trackers] = []  # of this process


def close_all(is_finished: bool) -> None:
    """Close the trackers that are still open, before the process exits."""
    for trackers in list(_open):
        trackers.close(is_finished)


def run_id(path: Path, make: Callable[[], str]) -> str:
    """Return the contents of a file with the id of a job's run in a tracker; a new file gets that of `make`."""
    if not path.is_file():
        path.write_text(make(), "utf-8")
    return path.read_text("utf-8").strip()


def samples_text(row: Row) -> str:
    """Return a row of samples_at_steps.jsonl as Markdown: the last message of the prompt, then the completion."""
    turns = row.get("turns") or [{"role": "assistant", "content": row["text"]}]
    return "\n\n".join(f"**{turn['role']}:** {turn['content']}" for turn in [*row["messages"][-1:], *turns])


def say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


for _module in sorted(module.name for module in pkgutil.iter_modules(__path__)):
    importlib.import_module(f"{__name__}.{_module}")
