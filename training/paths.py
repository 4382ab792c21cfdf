"""Paths of model folders in the database, stored so that the data folder can be moved or restored elsewhere."""

from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import models

IN_DATA_FOLDER = "data:"  # prefix of paths relative to ACCORD_DATA; other paths are stored unchanged


class FolderField(models.CharField):
    """Full path of a folder, or a hub id. A path below the data folder is stored relative to it."""

    def get_prep_value(self, value: Any) -> Any:
        value = super().get_prep_value(value)
        return stored(value) if isinstance(value, str) else value

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        return in_full(value) if isinstance(value, str) else value


def stored(path: str) -> str:
    """Return the database value of a path."""
    folder = Path(path)
    if folder.is_absolute() and folder.is_relative_to(settings.DATA_DIR):
        return IN_DATA_FOLDER + folder.relative_to(settings.DATA_DIR).as_posix()
    return path


def in_full(path: str) -> str:
    """Return the full path of a database value."""
    inside = path.removeprefix(IN_DATA_FOLDER)
    return str(settings.DATA_DIR / inside) if inside != path else path


def moved(path: str) -> str:
    """Return the path below today's data folder if `path` belongs to a data folder that was moved here, else `path`."""
    folder = Path(path)
    if not folder.is_absolute() or folder.exists():
        return path
    for count in range(len(folder.parts) - 1, 1, -1):
        here: Path = settings.DATA_DIR.joinpath(*folder.parts[-count:])
        if (here / "config.json").is_file():
            return str(here)
    return path
