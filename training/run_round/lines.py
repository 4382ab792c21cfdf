"""Copy of a program's metrics.jsonl and samples_at_steps.jsonl into the database while the files grow."""

import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from django.db import InterfaceError, OperationalError, close_old_connections

logger = logging.getLogger(__name__)

READ_EVERY = 1.0  # seconds: a step is stored within 2 s


class LinesTail:
    """Reader of new lines in one file; it starts again at the beginning if a resume rewrote the file."""

    def __init__(self, file: Path, store: Callable[[list[dict[str, Any]], bool], None]) -> None:
        self.file, self.store = file, store
        self._inode, self._offset, self._read_at = 0, 0, 0.0

    def follow(self) -> None:
        """Store new lines, at most once a second. If the database does not answer, try again at the next call."""
        if time.monotonic() - self._read_at < READ_EVERY:
            return
        self._read_at = time.monotonic()
        try:
            self.read()
        except (OperationalError, InterfaceError) as error:
            logger.warning("cannot store lines of %s, trying again: %s", self.file.name, error)
            close_old_connections()

    def read(self) -> None:
        """Store all complete lines that are not stored yet."""
        if not self.file.is_file():
            return
        with self.file.open("rb") as file:
            state = self.file.stat()
            if state.st_ino != self._inode or state.st_size < self._offset:
                self._inode, self._offset = state.st_ino, 0
            file.seek(self._offset)
            complete = file.read().rpartition(b"\n")[0]
        if complete:
            self.store([json.loads(line) for line in complete.splitlines()], self._offset == 0)
            self._offset += len(complete) + 1
