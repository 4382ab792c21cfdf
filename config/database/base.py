"""Django's PostgreSQL backend with a health check that needs no round trip on a busy connection."""

import math
import select
import time
from typing import Any

from django.db.backends.postgresql import base

ANSWER_AGE = 5.0  # seconds after an answer during which looking at the socket is enough


class DatabaseWrapper(base.DatabaseWrapper):
    """Django's wrapper, which would send `SELECT 1` before the first statement of every request.

    That took a tenth of a submit. A server that ends a connection, also by its own end, closes the socket or
    writes to it first, and the kernel knows that without asking. A network that drops packets in silence is found by
    `SELECT 1`, which is still sent if the last one was answered more than `ANSWER_AGE` ago.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.health_check_done: bool = False
        self._answered_at = -math.inf

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        connection = super().get_new_connection(conn_params)
        self._answered_at = time.monotonic()
        return connection

    def is_usable(self) -> bool:
        is_usable = super().is_usable()
        if is_usable:
            self._answered_at = time.monotonic()
        return is_usable

    def close_if_health_check_failed(self) -> None:
        is_due = self.connection is not None and self.health_check_enabled and not self.health_check_done
        if is_due and time.monotonic() - self._answered_at < ANSWER_AGE and self._is_quiet():
            self.health_check_done = True
        else:
            super().close_if_health_check_failed()

    def _is_quiet(self) -> bool:
        """Return whether the open connection has nothing to read: neither its end nor a last message."""
        if self.connection.closed:
            return False
        poll = select.poll()
        poll.register(self.connection.fileno(), select.POLLIN)
        return not poll.poll(0)
