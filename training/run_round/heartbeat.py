"""Heartbeat of a running round, in its own thread so that slow work cannot delay it."""

import logging
import threading
from types import TracebackType
from typing import Self

from django.db import InterfaceError, OperationalError, connection

from training.rounds import lifecycle

logger = logging.getLogger(__name__)

# Set when this worker must shut down: it returns its round to the queue, and the next worker resumes it.
shutting_down = threading.Event()


class Heartbeat:
    """Context manager that refreshes the heartbeat and checks whether the round should stop.

    `log_tail` is the end of the running program's log, which is stored with the next heartbeat where it has changed.
    """

    def __init__(self, claim: lifecycle.Claim) -> None:
        self.claim = claim
        self.is_cancelled = False
        self.is_lost = False
        self.log_tail = self._stored_log_tail = ""
        self._has_ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name=f"heartbeat of round {claim.round_id}", daemon=True)

    @property
    def should_stop(self) -> bool:
        return self.is_cancelled or self.is_lost or shutting_down.is_set()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._has_ended.set()
        self._thread.join()

    def _beat(self) -> None:
        try:
            while not self._has_ended.wait(lifecycle.HEARTBEAT_EVERY):
                self._beat_once()
        finally:
            connection.close()  # each thread has its own database connection

    def _beat_once(self) -> None:
        try:
            log_tail = self.log_tail  # once: another thread sets it
            self.is_cancelled = lifecycle.beat(self.claim, log_tail if log_tail != self._stored_log_tail else None)
            self._stored_log_tail = log_tail
        except lifecycle.ClaimLost:
            self.is_lost = True
            self._has_ended.set()
        except (OperationalError, InterfaceError) as error:
            logger.warning("cannot store the heartbeat, the database does not answer: %s", error)
            connection.close()  # the next beat opens a new connection
