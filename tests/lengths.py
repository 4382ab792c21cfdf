"""Lengths of tests that simulate: full in CI and with `manage.py test --full`, shorter otherwise."""

import os
from typing import TypeVar

T = TypeVar("T")


def is_full() -> bool:
    """Return whether tests marked full run. `config.runtime.testing` sets the variable."""
    return bool(os.environ.get("ACCORD_FULL_TESTS"))


def length(full: T, short: T) -> T:
    """Return the length of this run's tests."""
    return full if is_full() else short
