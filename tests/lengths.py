"""Lengths of tests that simulate: full in CI and with `manage.py test --full`, shorter otherwise."""

import os
from typing import TypeVar

T = TypeVar("T")


def length(full: T, short: T) -> T:
    """Return the length of this run's tests. `config.runtime.testing` sets the variable."""
    return full if os.environ.get("ACCORD_FULL_TESTS") else short
