"""The heartbeat of a running round, in a thread of its own, so that nothing slow can hold it up."""

import logging
import threading
from types import TracebackType
from typing import Self

from django.db import InterfaceError, OperationalError, connection

from training.rounds import lifecycle

logger = logging.getLogger(__name__)

# Set when this worker is told to shut down: it gives its round back, and the next worker goes on with it.
shutting_down = threading.Event()


class Heartbeat:
    """Beats while the round runs, and knows whether it should stop."""

    def __init__(self, claim: lifecycle.Claim) -> None:
        self.claim = claim
        self.is_cancelled = False
        self.is_lost = False
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name=f"heartbeat of round {claim.round_id}", daemon=True)

    @property
    def should_stop(self) -> bool:
        return self.is_cancelled or self.is_lost or shutting_down.is_set()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()

    def _beat(self) -> None:
        try:
            while not self._over.wait(lifecycle.HEARTBEAT_EVERY):
                self._beat_once()
        finally:
            connection.close()  # this thread's own

    def _beat_once(self) -> None:
        try:
            self.is_cancelled = lifecycle.beat(self.claim)
        except lifecycle.ClaimLost:
            self.is_lost = True
            self._over.set()
        except (OperationalError, InterfaceError) as error:
            logger.warning("no heartbeat, the database does not answer: %s", error)
            connection.close()  # the next beat opens a new one
