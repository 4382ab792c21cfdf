"""Job directory: the plain files that are a program's input and output.

    config.json    in: every setting, after validation     state/  to resume from, replaced atomically
    *.jsonl        in: rankings, prompts, demonstrations   model/  out: a Hugging Face folder, safetensors
    metrics.jsonl  out: one line per step                  result.json  out: written last, atomically
    log.txt        stdout and stderr of the program        stopped  out: exists while the program can be resumed
    samples_at_steps.jsonl  out: completions of the same prompts by the policy of several steps, one per line
    events.out.tfevents.*   out: metrics and samples for TensorBoard

Without ``result.json`` the program has not succeeded. Exit codes: 0 done; 75 stopped by SIGTERM with its state saved
(run it again to continue); 2 bad input (the last line of stderr is the reason); 1 failed. A program does nothing if
``result.json`` exists. Launchers of several processes (accelerate, torchrun) replace every code except 0 by 1. The file
``stopped`` then shows that the program was stopped, and the line ``error: …`` that it failed. Standard library only:
the web process imports this module.
"""

import json
import math
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_BAD_INPUT = 2
EXIT_STOPPED = 75  # EX_TEMPFAIL of sysexits.h: try again later
STOPPED_MARKER = "stopped"
METRICS = "metrics.jsonl"
SAMPLES_AT_STEPS = "samples_at_steps.jsonl"
MEASURED_SAMPLES = "measured_samples.jsonl"


class BadInput(Exception):
    """The input of the program cannot be used; the message is one sentence for people."""


class TrainingFailed(Exception):
    """The training failed, for example with a loss that is not finite; the message is one sentence for people."""


class Stopped(Exception):
    """The program was asked to stop; its step is finished and its state saved."""


class StopSignal:
    """Flag that SIGTERM sets and a program reads between two steps. Create it in the main thread."""

    def __init__(self) -> None:
        self.received = False
        signal.signal(signal.SIGTERM, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = True


class MachineMeter(Protocol):
    """Meter of the machine, see machine.py."""

    def restart(self) -> None: ...

    def read(self, tokens: float | None) -> dict[str, float]: ...

    def peaks(self) -> dict[str, float]: ...


class Followers(Protocol):
    """Trackers, see the package trackers."""

    def resume_after(self, step: int) -> None: ...

    def write_metrics(self, step: int, at: float, values: Mapping[str, float]) -> None: ...

    def write_samples(self, step: int, at: float, rows: Sequence[dict[str, Any]]) -> None: ...

    def close(self, is_finished: bool) -> None: ...


class JobDirectory:
    """Reader and writer of the files of one job.

    With several processes only the writer (rank 0) changes files. Writes of the others are no-ops, so a program makes
    the same calls on all ranks.
    """

    def __init__(self, path: Path, is_writer: bool = True) -> None:
        self.path = Path(path)
        self.is_writer = is_writer
        self._last_step: int | None = None
        self._last_samples_step: int | None = None
        self.machine: MachineMeter | None = None  # adds its figures to metrics and result
        self.trackers: Followers | None = None  # get all metrics and samples
        if not self.path.is_dir():
            raise BadInput(f"the job directory {self.path} does not exist")
        if is_writer:
            for name in ("state", "model"):
                finish_replacement(self.path / name)

    def config(self) -> dict[str, Any]:
        """Return the settings in config.json. Raises BadInput if it is missing or not a JSON object."""
        file = self.path / "config.json"
        if not file.is_file():
            raise BadInput(f"{file} does not exist")
        try:
            settings = json.loads(file.read_text("utf-8"))
        except ValueError as error:
            raise BadInput(f"{file} is not JSON: {error}") from error
        if not isinstance(settings, dict):
            raise BadInput(f"{file} must hold a JSON object")
        return settings

    def write_config(self, settings: dict[str, Any]) -> None:
        self._write_atomically("config.json", json.dumps(settings, indent=2, ensure_ascii=False, allow_nan=False))

    def rows(self, name: str) -> Iterator[dict[str, Any]]:
        """Yield the objects of a JSON Lines file, without blank lines. Raises BadInput that names file and line."""
        file = self.path / name
        if not file.is_file():
            raise BadInput(f"{file} does not exist")
        with file.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield parse_row(line, f"{name}, line {number}")

    def write_rows(self, name: str, rows: Iterator[dict[str, Any]]) -> None:
        """Write a JSON Lines file; it appears under its name only when all rows are on disk."""
        self._write_atomically(name, (json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows))

    def write_measured_samples(self, rows: Iterable[dict[str, Any]]) -> None:
        """Write the samples that figures of result.json are means of. A figure that is not finite becomes null."""
        self.write_rows(MEASURED_SAMPLES, (_finite(row) for row in rows))

    def append_metrics(self, step: int, total: int, **values: float) -> None:
        """Append a line to metrics.jsonl. Raises ValueError if the step does not increase, TrainingFailed on NaN."""
        if not self.is_writer:
            return
        last = self.last_metrics_step() if self._last_step is None else self._last_step
        if last is not None and step <= last:
            raise ValueError(f"metrics of step {step} after those of step {last}")
        for name, value in values.items():
            if not math.isfinite(value):
                raise TrainingFailed(f"{name} is {value} at step {step}")
        if self.machine is not None:
            values = self.machine.read(values.get("tokens")) | values  # a figure by the program itself comes first
        now = round(time.time(), 3)
        line = json.dumps({"step": step, "total": total, "time": now, **values}) + "\n"
        with (self.path / METRICS).open("a", encoding="utf-8") as file:
            file.write(line)
        self._last_step = step
        if self.trackers is not None:
            self.trackers.write_metrics(step, now, values)

    def append_samples(self, step: int, rows: Sequence[dict[str, Any]]) -> None:
        """Append the completions of a step to samples_at_steps.jsonl, unless a run before a resume has written them.

        rows: {"prompt_id", "messages", "text" or "turns", …}, in the same order of the prompts at every step. A figure
        that is not finite becomes null: the program's own check of its figures reports it, with a sentence.
        """
        if self._last_samples_step is None:
            self._last_samples_step = max((row["step"] for row in self.samples_at_steps()), default=-1)
        if not self.is_writer or not rows or step <= self._last_samples_step:
            return
        lines = [json.dumps({"step": step, **_finite(row)}, ensure_ascii=False, allow_nan=False) + "\n" for row in rows]
        with (self.path / SAMPLES_AT_STEPS).open("a", encoding="utf-8") as file:
            file.writelines(lines)
        self._last_samples_step = step
        if self.trackers is not None:
            self.trackers.write_samples(step, time.time(), rows)

    def metrics(self) -> list[dict[str, Any]]:
        """Return all complete lines of metrics.jsonl; a line that is being written is left out."""
        return self._complete_lines(METRICS)

    def samples_at_steps(self) -> list[dict[str, Any]]:
        """Return all complete lines of samples_at_steps.jsonl; a line that is being written is left out."""
        return self._complete_lines(SAMPLES_AT_STEPS)

    def last_metrics_step(self) -> int | None:
        lines = self.metrics()
        return lines[-1]["step"] if lines else None

    def truncate_metrics(self, step: int) -> None:
        """Remove metrics and samples of later steps than the state that training resumes from, and half-written lines.

        Every program calls it once, before its first step.
        """
        self._last_step = self._last_samples_step = None
        for name in (METRICS, SAMPLES_AT_STEPS):
            if (self.path / name).exists():
                lines = [line for line in self._complete_lines(name) if line["step"] <= step]
                self._write_atomically(name, (json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
        if self.trackers is not None:
            self.trackers.resume_after(step)
        if self.machine is not None:
            self.machine.restart()

    def _complete_lines(self, name: str) -> list[dict[str, Any]]:
        file = self.path / name
        if not file.is_file():
            return []
        # Split at "\n" only: a text may hold other line separators, such as U+2028.
        return [json.loads(line) for line in file.read_text("utf-8").split("\n")[:-1]]

    @property
    def state(self) -> Path | None:
        """Folder to resume from, or None at the first start."""
        folder = self.path / "state"
        return folder if folder.is_dir() else None

    def save_folder(self, name: str, write: Callable[[Path], object]) -> None:
        """Replace a folder atomically: `write` fills an empty folder, and readers see the old or the new one."""
        if not self.is_writer:
            return
        new, old = self.path / f"{name}.new", self.path / f"{name}.old"
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir()
        write(new)
        flush_folder(new)
        if (self.path / name).exists():
            os.replace(self.path / name, old)  # finish_replacement relies on `new` being complete from here on
        os.replace(new, self.path / name)
        shutil.rmtree(old, ignore_errors=True)

    def result(self) -> dict[str, Any] | None:
        """Return the contents of result.json, or None if the program has not finished."""
        file = self.path / "result.json"
        return json.loads(file.read_text("utf-8")) if file.is_file() else None

    def write_result(self, result: dict[str, Any]) -> None:
        """Write result.json, which marks success: call it last. Raises TrainingFailed on NaN."""
        if self.machine is not None:
            result = result | self.machine.peaks()
        for name, value in result.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise TrainingFailed(f"{name} is {value} in the result")
        self._write_atomically("result.json", json.dumps(result, indent=2, ensure_ascii=False, allow_nan=False))
        if self.trackers is not None:
            self.trackers.close(is_finished=True)

    def _write_atomically(self, name: str, text: str | Iterator[str] | list[str]) -> None:
        if not self.is_writer:
            return
        temporary = self.path / f"{name}.new"
        with temporary.open("w", encoding="utf-8") as file:
            file.writelines([text] if isinstance(text, str) else text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, self.path / name)


def finish_replacement(folder: Path) -> None:
    """Complete a replacement of `folder` that was killed between its two renames, and remove leftovers."""
    new, old = folder.with_name(f"{folder.name}.new"), folder.with_name(f"{folder.name}.old")
    if old.exists() and new.exists() and not folder.exists():
        os.replace(new, folder)
    shutil.rmtree(new, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)


def flush_folder(folder: Path) -> None:
    """Flush a folder's files to disk, so that a later rename cannot reveal empty files after a crash."""
    for file in folder.rglob("*"):
        if file.is_file():
            with file.open("rb") as opened:
                os.fsync(opened.fileno())


def parse_row(line: bytes, where: str) -> dict[str, Any]:
    """Return the object of one line. Raises BadInput that names its place."""
    try:
        row = json.loads(line.decode("utf-8"))
        if b"\\ud" in line.lower():  # JSON can escape half of a surrogate pair, which no tokenizer accepts
            json.dumps(row, ensure_ascii=False).encode("utf-8")
    except ValueError as error:
        raise BadInput(f"{where} is not JSON: {error}") from error
    if not isinstance(row, dict):
        raise BadInput(f"{where} must be a JSON object")
    return row


def first_line(error: Exception) -> str:
    """Return the first line of an error's text, or its name if it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _finite(row: dict[str, Any]) -> dict[str, Any]:
    """Return the row with null for each number that JSON does not have."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in row.items()
    }
