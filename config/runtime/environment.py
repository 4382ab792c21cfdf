"""Typed readers of environment variables, for settings alone."""

import os
from urllib.parse import urlsplit

from config.runtime.errors import SetupError


def read_text(name: str, default: str = "") -> str:
    return os.environ.get(name, "").strip() or default


def read_boolean(name: str, default: bool) -> bool:
    given = read_text(name).lower()
    if not given:
        return default
    if given in ("1", "true", "yes", "on"):
        return True
    if given in ("0", "false", "no", "off"):
        return False
    raise SetupError(f"{name} is «{given}»: write 1 or 0.")


def read_choice(name: str, choices: tuple[str, ...], default: str) -> str:
    """One of the choices, which are in capitals; ours may be written in any letters."""
    given = read_text(name, default).upper()
    if given not in choices:
        raise SetupError(f"{name} is «{given}»: write one of {', '.join(choices)}.")
    return given


def read_integer(name: str, default: int, least: int = 0) -> int:
    given = read_text(name)
    if not given:
        return default
    if not given.isdecimal() or int(given) < least:
        raise SetupError(f"{name} is «{given}»: write a whole number of at least {least}.")
    return int(given)


def read_list(name: str, default: list[str]) -> list[str]:
    """Comma-separated."""
    given = [part.strip() for part in read_text(name).split(",")]
    return [part for part in given if part] or default


def read_url(name: str, default: str = "") -> str:
    given = read_text(name).rstrip("/")
    if not given:
        return default
    parts = urlsplit(given)
    if parts.scheme not in ("http", "https") or not parts.netloc or parts.path:
        raise SetupError(f"{name} is «{given}»: write it like https://accord.example.org.")
    return given
