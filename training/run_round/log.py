"""End of a running program's log.txt, as people may read it on a page."""

import re
import time
import unicodedata
from collections.abc import Callable
from pathlib import Path

TAIL_BYTES = 4096
READ_EVERY = 2.0  # seconds: a heartbeat stores it
ESCAPE_SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\^_])")  # ECMA-48
CONTROLS = ("Cc", "Cf")  # Unicode categories; Cf has the marks that turn the direction of a line


class LogTail:
    """Reader of the end of a log while it grows. It passes the text on where it has changed."""

    def __init__(self, file: Path, show: Callable[[str], None]) -> None:
        self.file, self.show = file, show
        self._read_at, self._size = float("-inf"), -1

    def follow(self) -> None:
        """Read the log, at most every two seconds and only if it has grown."""
        if time.monotonic() - self._read_at < READ_EVERY or not self.file.is_file():
            return
        self._read_at = time.monotonic()
        if (size := self.file.stat().st_size) != self._size:
            self._size = size
            self.show(end_of(self.file))


def end_of(file: Path) -> str:
    """Return the whole lines in the last 4 kB of a log, without control characters."""
    with file.open("rb") as log:
        start = max(0, file.stat().st_size - TAIL_BYTES)
        log.seek(start)
        tail = log.read(TAIL_BYTES)
    if start and b"\n" in tail:
        tail = tail.partition(b"\n")[2]
    return "\n".join(_without_controls(line) for line in tail.decode(errors="replace").split("\n")).strip("\n")


def _without_controls(line: str) -> str:
    """Return a line as a terminal shows it: a carriage return overwrites what is before it, as progress bars do."""
    last = ESCAPE_SEQUENCE.sub("", line).rstrip("\r").rpartition("\r")[2]
    return "".join(c for c in last.replace("\t", "    ") if unicodedata.category(c) not in CONTROLS)
