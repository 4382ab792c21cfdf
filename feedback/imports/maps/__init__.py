"""Maps of file formats. Each TOML file of the folder `shipped` is one, with the name of the file."""

from functools import cache
from pathlib import Path

from django.utils.translation import gettext as _

from feedback.errors import Invalid
from feedback.imports.maps.description import Map, read_toml

FOLDER = Path(__file__).with_name("shipped")


@cache
def shipped() -> dict[str, Map]:
    """Return the shipped maps by name."""
    files = sorted(FOLDER.glob("*.toml"), key=lambda file: file.stem)
    return {file.stem: read_toml(f'name = "{file.stem}"\n{file.read_text("utf-8")}') for file in files}


def find(name: str) -> Map:
    """Return the shipped map of this name. Raises Invalid."""
    made = shipped().get(name)
    if made is None:
        raise Invalid(
            _('There is no map "%(name)s": the maps are %(known)s.') % {"name": name, "known": ", ".join(shipped())}
        )
    return made
