"""Password hashing with limited concurrency, so that many sign-ins at once do not slow down labelling.

This bounds the CPU time, not the number of guesses: `accounts/adapter.py` does.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from threading import BoundedSemaphore
from time import monotonic, sleep

from django.conf import settings
from django.contrib.auth.hashers import PBKDF2PasswordHasher
from django.core.exceptions import ValidationError
from django.utils.translation import gettext as _

from feedback.errors import AccordError

MAX_CONCURRENT = 2  # hashes at once in all web processes of a machine
MAX_WAIT = 3.0  # seconds
POLL_INTERVAL = 0.02  # seconds
RETRY_AFTER = 5  # seconds
MIN_DISTINCT_CHARACTERS = 4  # in a password

# At most half of this process's threads wait; the others serve users who are signed in.
_waiting = BoundedSemaphore(max(1, settings.WEB_THREADS // 2))


class Busy(AccordError):
    """Too many people are signing in."""

    status = 503
    code = "busy"
    retry_after = RETRY_AFTER


class LimitedHasher(PBKDF2PasswordHasher):
    """Django's default hasher, at most MAX_CONCURRENT at a time on a machine. Raises Busy after MAX_WAIT."""

    def encode(self, password: str, salt: str, iterations: int | None = None) -> str:
        with _slot():
            return super().encode(password, salt, iterations)


@contextmanager
def _slot() -> Iterator[None]:
    """Hold one of the slots. A slot is a file lock, so that the kernel frees it when the process is killed."""
    if not _waiting.acquire(blocking=False):
        raise _busy()
    try:
        lock = _lock()
        try:
            yield
        finally:
            os.close(lock)
    finally:
        _waiting.release()


def _lock() -> int:
    deadline = monotonic() + MAX_WAIT
    while True:
        for number in range(MAX_CONCURRENT):
            lock = os.open(settings.DATA_DIR / f"sign-in-{number}.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return lock
            except BlockingIOError:
                os.close(lock)
        if monotonic() > deadline:
            raise _busy()
        sleep(POLL_INTERVAL)


def _busy() -> Busy:
    return Busy(_("Many people are signing in at this moment: try again in a few seconds."))


class DistinctCharactersValidator:
    """Refuse passwords with fewer than four different characters, such as "aaaaaaab"."""

    def validate(self, password: str, user: object = None) -> None:
        if len(set(password)) < MIN_DISTINCT_CHARACTERS:
            raise ValidationError(self.get_help_text(), code="password_repeats")

    def get_help_text(self) -> str:
        return _("Your password must have at least four different characters.")
