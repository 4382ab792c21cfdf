"""Heartbeat of a worker, in its own thread: tasks of the solo pool occupy the main thread."""

import logging
import os
import socket
import threading

from django.db import InterfaceError, OperationalError, connection

from training.workers import machine, rows

GPU_QUEUE = "gpu"  # only its workers run programs, so only they ask for the GPUs
GPUS_EVERY = 3  # heartbeats: nvidia-smi can take a second

logger = logging.getLogger(__name__)


class WorkerHeartbeat:
    """Writer of this process's row, from the worker's start to its end."""

    def __init__(self, queues: list[str]) -> None:
        self.queues = queues
        self.host, self.process_id = socket.gethostname(), os.getpid()
        self._beats = 0
        self._has_ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat of the worker", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Mark the worker as stopped; without a database it will be shown as dead."""
        self._has_ended.set()
        self._thread.join()
        try:
            rows.mark_stopped(self.host, self.process_id)
        except (OperationalError, InterfaceError) as error:
            logger.warning("cannot mark this worker as stopped, the database does not answer: %s", error)

    def _run(self) -> None:
        try:
            while True:
                self._beat_once()
                if self._has_ended.wait(rows.HEARTBEAT_EVERY):
                    return
        finally:
            connection.close()  # each thread has its own database connection

    def _beat_once(self) -> None:
        columns = machine.load()
        if GPU_QUEUE in self.queues and self._beats % GPUS_EVERY == 0:
            columns["gpus"] = machine.gpus()
        try:
            if self._beats == 0 or not rows.beat(self.host, self.process_id, **columns):
                columns |= {"queues": self.queues, **machine.facts()}
                rows.register(self.host, self.process_id, **columns)
            self._beats += 1
        except (OperationalError, InterfaceError) as error:
            logger.warning("cannot store the heartbeat, the database does not answer: %s", error)
            connection.close()  # the next beat opens a new connection


def begin(queues: list[str]) -> None:
    """Start the heartbeat of this process."""
    global running
    running = WorkerHeartbeat(sorted(queues))
    running.start()


def end() -> None:
    """Stop the heartbeat of this process, if it has begun."""
    if running is not None:
        running.stop()


running: WorkerHeartbeat | None = None
