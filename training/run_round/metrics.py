"""Follows a program's metrics.jsonl into the database while it grows."""

import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from django.db import InterfaceError, OperationalError, close_old_connections

logger = logging.getLogger(__name__)

READ_EVERY = 1.0  # seconds: a step is in the database within 2


class MetricsTail:
    """Reads what is new in one metrics.jsonl and hands it on, from the file's start when a resume rewrote it."""

    def __init__(self, file: Path, keep: Callable[[list[dict[str, Any]], bool], None]) -> None:
        self.file, self.keep = file, keep
        self._inode, self._offset, self._read_at = 0, 0, 0.0

    def follow(self) -> None:
        """Read what is new, at most once a second. A database that is away for a while costs nothing but time."""
        if time.monotonic() - self._read_at < READ_EVERY:
            return
        self._read_at = time.monotonic()
        try:
            self.read()
        except (OperationalError, InterfaceError) as error:
            logger.warning("the metrics could not be kept, trying again: %s", error)
            close_old_connections()

    def read(self) -> None:
        """Hand on every whole line that was not handed on yet."""
        if not self.file.is_file():
            return
        with self.file.open("rb") as file:
            state = self.file.stat()
            if state.st_ino != self._inode or state.st_size < self._offset:
                self._inode, self._offset = state.st_ino, 0
            file.seek(self._offset)
            whole = file.read().rpartition(b"\n")[0]
        if whole:
            self.keep([json.loads(line) for line in whole.splitlines()], self._offset == 0)
            self._offset += len(whole) + 1
