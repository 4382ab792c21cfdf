"""The job directory: the plain files through which a program is told what to do and says what it did.

    config.json    in: every setting, after validation     state/  to resume from, replaced atomically
    *.jsonl        in: rankings, prompts, demonstrations   model/  out: a Hugging Face folder, safetensors
    metrics.jsonl  out: a line a step                      result.json  out: written last, atomically
    log.txt        what the program printed           stopped  out: while it is stopped and can be resumed

No ``result.json``, no success. A program ends with 0 (done), 75 (stopped by SIGTERM with its state saved: run it again
to go on), 2 (bad input, the reason being the last line of stderr) or 1 (it failed). Run again where ``result.json``
exists, it does nothing. Launchers of several processes (accelerate, torchrun) end with 1 for any of these but 0: that a
program was stopped is then told by the file ``stopped``, and a bad input by the line ``error: …``. Standard library
only: the web process imports this.
"""

import json
import math
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_BAD_INPUT = 2
EXIT_STOPPED = 75  # EX_TEMPFAIL of sysexits.h: try again later
STOPPED_MARKER = "stopped"


class BadInput(Exception):
    """What the program was given cannot be used; the message is one sentence for people."""


class TrainingFailed(Exception):
    """The training itself went wrong (a loss that is not finite); the message is one sentence for people."""


class Stopped(Exception):
    """A stop was requested, the step is finished and the state is saved."""


class StopSignal:
    """Turns SIGTERM into a flag that a program reads between two steps. Make it in the main thread."""

    def __init__(self) -> None:
        self.received = False
        signal.signal(signal.SIGTERM, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = True


class JobDirectory:
    """Reads and writes the files of one job.

    With several processes on one job only the writer (rank 0) changes files: every write of the others is a no-op, so
    that a program calls them on all ranks alike.
    """

    def __init__(self, path: Path, is_writer: bool = True) -> None:
        self.path = Path(path)
        self.is_writer = is_writer
        self._last_step: int | None = None
        if not self.path.is_dir():
            raise BadInput(f"the job directory {self.path} does not exist")
        if is_writer:
            for name in ("state", "model"):
                finish_replacement(self.path / name)

    def config(self) -> dict[str, Any]:
        """The settings in config.json. Raises BadInput when it is missing or is not a JSON object."""
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
        """The objects of a JSON Lines file, blank lines skipped. Raises BadInput naming the file and line."""
        file = self.path / name
        if not file.is_file():
            raise BadInput(f"{file} does not exist")
        with file.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield parse_row(line, f"{name}, line {number}")

    def write_rows(self, name: str, rows: Iterator[dict[str, Any]]) -> None:
        """Writes a JSON Lines file whole: it appears only when its last row is on disk."""
        self._write_atomically(name, (json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows))

    def append_metrics(self, step: int, total: int, **values: float) -> None:
        """Adds a line to metrics.jsonl. Raises ValueError if the step does not increase, TrainingFailed on NaN."""
        if not self.is_writer:
            return
        last = self.last_metrics_step() if self._last_step is None else self._last_step
        if last is not None and step <= last:
            raise ValueError(f"metrics of step {step} after those of step {last}")
        for name, value in values.items():
            if not math.isfinite(value):
                raise TrainingFailed(f"{name} is {value} at step {step}")
        line = json.dumps({"step": step, "total": total, "time": round(time.time(), 3), **values}) + "\n"
        with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(line)
        self._last_step = step

    def metrics(self) -> list[dict[str, Any]]:
        """Every whole line of metrics.jsonl so far; a line still being written is left out."""
        file = self.path / "metrics.jsonl"
        if not file.is_file():
            return []
        return [json.loads(line) for line in file.read_text("utf-8").splitlines(keepends=True) if line.endswith("\n")]

    def last_metrics_step(self) -> int | None:
        lines = self.metrics()
        return lines[-1]["step"] if lines else None

    def truncate_metrics(self, step: int) -> None:
        """Drops the lines of later steps, which the state resumed from has not seen (and a half-written last one)."""
        self._last_step = None
        kept = [json.dumps(line) + "\n" for line in self.metrics() if line["step"] <= step]
        if (self.path / "metrics.jsonl").exists():
            self._write_atomically("metrics.jsonl", kept)

    @property
    def state(self) -> Path | None:
        """The folder to resume from, or None at a first start."""
        folder = self.path / "state"
        return folder if folder.is_dir() else None

    def save_folder(self, name: str, write: Callable[[Path], object]) -> None:
        """Replaces the folder by what `write` puts into an empty one: a reader sees the old or the new, never a mix."""
        if not self.is_writer:
            return
        new, old = self.path / f"{name}.new", self.path / f"{name}.old"
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir()
        write(new)
        flush_folder(new)
        if (self.path / name).exists():
            os.replace(self.path / name, old)  # from here on `new` is whole: finish_replacement relies on it
        os.replace(new, self.path / name)
        shutil.rmtree(old, ignore_errors=True)

    def result(self) -> dict[str, Any] | None:
        """What a finished program reported; None while it has not finished."""
        file = self.path / "result.json"
        return json.loads(file.read_text("utf-8")) if file.is_file() else None

    def write_result(self, result: dict[str, Any]) -> None:
        """Declares success: write it last. Raises TrainingFailed on NaN."""
        for name, value in result.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise TrainingFailed(f"{name} is {value} in the end")
        self._write_atomically("result.json", json.dumps(result, indent=2, ensure_ascii=False, allow_nan=False))

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
    """Completes a replacement of `folder` that a kill cut short between its two renames, and clears leftovers."""
    new, old = folder.with_name(f"{folder.name}.new"), folder.with_name(f"{folder.name}.old")
    if old.exists() and new.exists() and not folder.exists():
        os.replace(new, folder)
    shutil.rmtree(new, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)


def flush_folder(folder: Path) -> None:
    """Forces a folder's files to the disk, so that a rename after it never names an empty file."""
    for file in folder.rglob("*"):
        if file.is_file():
            with file.open("rb") as opened:
                os.fsync(opened.fileno())


def parse_row(line: bytes, where: str) -> dict[str, Any]:
    """One JSON Lines object. Raises BadInput saying where."""
    try:
        row = json.loads(line.decode("utf-8"))
        if b"\\ud" in line.lower():  # half of a pair may be escaped, but is no character: no tokenizer takes it
            json.dumps(row, ensure_ascii=False).encode("utf-8")
    except ValueError as error:
        raise BadInput(f"{where} is not JSON: {error}") from error
    if not isinstance(row, dict):
        raise BadInput(f"{where} must be a JSON object")
    return row
