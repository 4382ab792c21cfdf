"""Hash few passwords at a time, so that labelling goes on while many people, or a program, try to sign in.

This bounds the work, not the number of guesses: limits by account and address come with a later version, and a proxy in
front can set them today.
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

AT_ONCE = 2  # in all web processes of a machine
PATIENCE = 3.0  # seconds
PAUSE = 0.02  # seconds between looks for a free place
RETRY_AFTER = 5  # seconds
LEAST_DIFFERENT = 4  # characters of a password

# Of this process's threads: the others are left to those who are signed in.
_waiting = BoundedSemaphore(max(1, settings.WEB_THREADS // 2))


class Busy(AccordError):
    """Too many people sign in at this moment."""

    status = 503
    code = "busy"
    retry_after = RETRY_AFTER


class FewAtOnce(PBKDF2PasswordHasher):
    """Django's default, at most two at a time on a machine. Raises Busy where that takes too long."""

    def encode(self, password: str, salt: str, iterations: int | None = None) -> str:
        with _place():
            return super().encode(password, salt, iterations)


@contextmanager
def _place() -> Iterator[None]:
    """One of the places, as a lock on a file: who is killed gives it back."""
    if not _waiting.acquire(blocking=False):
        raise _busy()
    try:
        place = _lock()
        try:
            yield
        finally:
            os.close(place)
    finally:
        _waiting.release()


def _lock() -> int:
    deadline = monotonic() + PATIENCE
    while True:
        for number in range(AT_ONCE):
            place = os.open(settings.DATA_DIR / f"sign-in-{number}.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return place
            except BlockingIOError:
                os.close(place)
        if monotonic() > deadline:
            raise _busy()
        sleep(PAUSE)


def _busy() -> Busy:
    return Busy(_("Many people are signing in at this moment: try again in a few seconds."))


class DifferentCharacters:
    """Refuses passwords of fewer than four different characters, such as "aaaaaaab"."""

    def validate(self, password: str, user: object = None) -> None:
        if len(set(password)) < LEAST_DIFFERENT:
            raise ValidationError(self.get_help_text(), code="password_repeats")

    def get_help_text(self) -> str:
        return _("Your password must have at least four different characters.")
