"""Options that are read before Django, and therefore argparse, can start. Standard library only."""

import os
from pathlib import Path

from config.runtime.errors import SetupError


def option(arguments: list[str], name: str) -> str | None:
    """Return the value of `--name VALUE` or `--name=VALUE`, or None if it is not there."""
    for index, argument in enumerate(arguments):
        if argument == "--":
            break
        if argument.startswith(name + "="):
            return argument.partition("=")[2]
        if argument == name and index + 1 < len(arguments):
            return arguments[index + 1]
    return None


def choose_data_dir(arguments: list[str]) -> list[str]:
    """Set ACCORD_DATA from `--data DIR`, and return the arguments without it. Raises SetupError if DIR is missing."""
    folder = option(arguments, "--data")
    if folder is None:
        if "--data" in arguments:
            raise SetupError("--data needs a folder: write --data DIR.")
        return arguments
    os.environ["ACCORD_DATA"] = str(Path(folder).resolve())
    index = next(n for n, argument in enumerate(arguments) if argument == "--data" or argument.startswith("--data="))
    return arguments[:index] + arguments[index + (2 if arguments[index] == "--data" else 1) :]


def runs_service(name: str, command: str, arguments: list[str]) -> bool:
    """Return whether `demo`, or `up` with its `--only`, runs this service on this machine."""
    if command not in ("demo", "up"):
        return False
    chosen = option(arguments, "--only") if command == "up" else None
    return chosen is None or name in [word.strip() for word in chosen.split(",")]
