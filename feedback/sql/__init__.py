"""Functions and triggers of the database: the current source of each is one `.sql` file of this folder.

To change one, edit its file and add a migration with `replace("NAME")`. A new file is loaded with `load("NAME")`.
"""

from pathlib import Path

from django.db.migrations import RunSQL

REVERSE = "-- REVERSE\n"


def load(name: str) -> RunSQL:
    """Return the operation that creates what the file `NAME.sql` defines. Reversed, it drops it again."""
    forward, _, reverse = _source(name).partition(REVERSE)
    return RunSQL(forward, reverse)


def replace(name: str) -> RunSQL:
    """Return the operation that loads a changed file. Reversed, it does nothing: the current source stays."""
    return RunSQL(_source(name).partition(REVERSE)[0], RunSQL.noop)


def _source(name: str) -> str:
    return Path(__file__).with_name(f"{name}.sql").read_text("utf-8")
