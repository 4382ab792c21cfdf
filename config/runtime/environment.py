"""Typed readers of environment variables, for config/settings.py only."""

import ipaddress
import os
from urllib.parse import urlsplit

from config.runtime.errors import SetupError

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def read_text(name: str, default: str = "") -> str:
    return os.environ.get(name, "").strip() or default


def read_boolean(name: str, default: bool) -> bool:
    text = read_text(name).lower()
    if not text:
        return default
    if text in ("1", "true", "yes", "on"):
        return True
    if text in ("0", "false", "no", "off"):
        return False
    raise SetupError(f'{name} is "{text}": write 1 or 0.')


def read_choice(name: str, choices: tuple[str, ...], default: str) -> str:
    """Return one of the choices, which are in capitals; the variable may be in any case."""
    text = read_text(name, default).upper()
    if text not in choices:
        raise SetupError(f'{name} is "{text}": write one of {", ".join(choices)}.')
    return text


def read_integer(name: str, default: int, minimum: int = 0) -> int:
    text = read_text(name)
    if not text:
        return default
    if not text.isdecimal() or int(text) < minimum:
        raise SetupError(f'{name} is "{text}": write a whole number of at least {minimum}.')
    return int(text)


def read_list(name: str, default: list[str]) -> list[str]:
    """Return the comma-separated values."""
    values = [value.strip() for value in read_text(name).split(",")]
    return [value for value in values if value] or default


def read_networks(name: str, default: list[str], private: list[str]) -> list[Network]:
    """Return the networks of a comma-separated list, such as 192.168.1.0/24. "private" stands for those of `private`.

    "none" alone is an empty list.
    """
    words = read_list(name, default)
    if words == ["none"]:
        return []
    networks = []
    for word in words:
        for text in private if word == "private" else [word]:
            try:
                networks.append(ipaddress.ip_network(text))
            except ValueError as error:
                raise SetupError(
                    f'{name} has "{word}": write networks such as 192.168.1.0/24, or private, or none.'
                ) from error
    return networks


def read_gpus(name: str) -> list[str] | None:
    """Return the GPUs of a list as CUDA reads it: none of an empty one, and none from a negative number on."""
    if name not in os.environ:
        return None
    gpus = [gpu.strip() for gpu in os.environ[name].split(",")]
    hidden = next((index for index, gpu in enumerate(gpus) if not gpu or gpu.startswith("-")), len(gpus))
    return gpus[:hidden]


def read_endpoint(name: str) -> str:
    """Return the address of an API, with a path. The error shows no part of it, since it may contain a password."""
    address = read_text(name).rstrip("/")
    parts = urlsplit(address)
    if address and (parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc or parts.query):
        raise SetupError(f"{name} must be like http://127.0.0.1:8001/v1, without user name, password and query.")
    return address


def read_key(name: str) -> str:
    """Return an API key. The error does not show it."""
    key = read_text(name)
    if not (key.isascii() and key.isprintable()):
        raise SetupError(f"{name} has characters that no key has: write it again.")
    return key


def read_url(name: str, default: str = "") -> str:
    url = read_text(name).rstrip("/")
    if not url:
        return default
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc or parts.path:
        raise SetupError(f'{name} is "{url}": write it like https://accord.example.org.')
    return url
