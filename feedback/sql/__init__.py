"""Functions and triggers of the database: the current source of each is one `.sql` file of this folder.

To change one, edit its file and add a migration with `replace("NAME", "DIGEST")`. A new file is loaded with
`load("NAME", "DIGEST")`. Every migration reads the file as it is today, so a new database has today's functions from
their first migration on. An existing database gets them from the last migration that names the file: its digest must
be that of today's file, else existing databases would keep the former functions.
"""

import hashlib
import re
from pathlib import Path

from django.db.migrations import RunSQL

REVERSE = "-- REVERSE\n"


class LoadFile(RunSQL):
    """Run a file of this folder. `digest` is that of the file when the migration was written; "" if unknown."""

    def __init__(self, name: str, digest: str, reverse: str) -> None:
        super().__init__(_source(name).partition(REVERSE)[0], reverse)
        self.name, self.digest = name, digest


def load(name: str, digest: str = "") -> LoadFile:
    """Return the operation that creates what the file `NAME.sql` defines. Reversed, it drops it again."""
    return LoadFile(name, digest, _source(name).partition(REVERSE)[2])


def replace(name: str, digest: str = "") -> LoadFile:
    """Return the operation that loads a changed file. Reversed, it does nothing: the current source stays."""
    return LoadFile(name, digest, RunSQL.noop)


def digest_of(name: str) -> str:
    """Return a digest of the file's statements, which comments and white space do not change."""
    statements = re.sub(r"--[^\n]*", "", _source(name))
    return hashlib.sha256(" ".join(statements.split()).encode()).hexdigest()[:12]


def _source(name: str) -> str:
    return Path(__file__).with_name(f"{name}.sql").read_text("utf-8")
