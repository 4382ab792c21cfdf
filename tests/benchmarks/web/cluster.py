"""A cluster of the system's PostgreSQL in a temporary folder, reachable by Unix socket only, removed afterwards.

It has the default settings: every commit is flushed to the disk, for Accord and for the peer.
"""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import psycopg

from config.runtime.errors import SetupError
from tests.benchmarks.web.processes import as_user, running, tail

ROLE = "bench"


@dataclass(frozen=True)
class Cluster:
    socket: Path

    def address(self, database: str) -> str:
        return f"postgresql://{ROLE}@/{database}?host={quote(str(self.socket))}"

    def connect(self, database: str = "postgres") -> psycopg.Connection:
        return psycopg.connect(self.address(database), autocommit=True)

    def version(self) -> str:
        with self.connect() as connection:
            return connection.execute("SHOW server_version").fetchone()[0]

    def create(self, database: str) -> None:
        with self.connect() as connection:
            connection.execute(f'CREATE DATABASE "{database}"')

    @contextmanager
    def copy(self, database: str) -> Iterator[str]:
        """Yield the name of a copy of the database, dropped at the end of the block. Nobody may be connected to it."""
        name = f"{database}_copy"
        with self.connect() as connection:
            connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{database}" STRATEGY file_copy')
            connection.execute("CHECKPOINT")  # otherwise a checkpoint would fall into the measurement
        try:
            yield name
        finally:
            with self.connect() as connection:
                connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@contextmanager
def cluster() -> Iterator[Cluster]:
    """Yield a running cluster. Raises SetupError if PostgreSQL is not installed or does not start."""
    binaries, owner = find_binaries(), _owner()
    folder = Path(tempfile.mkdtemp(prefix="accord-bench-postgres-"))
    try:
        if owner is not None:
            shutil.chown(folder, owner)
        data = folder / "data"
        making = [str(binaries / "initdb"), "-D", str(data), "-U", ROLE, "--auth=trust", "--encoding=UTF8"]
        made = subprocess.run([*making, "--locale=C"], cwd=folder, capture_output=True, text=True, **as_user(owner))
        if made.returncode:
            raise SetupError(f"initdb failed: {made.stderr.strip().splitlines()[-1]}")
        serving = [str(binaries / "postgres"), "-D", str(data), "-k", str(folder), "-c", "listen_addresses="]
        log = folder / "log"
        # SIGINT: a fast shutdown, which does not wait for clients.
        with running(
            [*serving, "-c", "unix_socket_permissions=0700"], log, folder=folder, owner=owner, polite=signal.SIGINT
        ) as process:
            yield _once_it_answers(Cluster(folder), process, log)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def find_binaries() -> Path:
    """Return the folder of the newest installed server's programs, which Debian keeps out of PATH."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda each: int(each.parent.name), reverse=True)
    on_path = shutil.which("initdb")
    found = [*folders, *([Path(on_path).resolve().parent] if on_path else [])]
    complete = next((each for each in found if (each / "initdb").exists() and (each / "postgres").exists()), None)
    if complete is None:
        raise SetupError("this benchmark needs the system's PostgreSQL: install it (Debian: apt install postgresql).")
    return complete


def _owner() -> str | None:
    """Return the user to run PostgreSQL as if this is root, which it refuses: postgres, or nobody."""
    if os.geteuid() != 0:
        return None
    names = {each.pw_name for each in pwd.getpwall()}
    return next(name for name in ("postgres", "nobody") if name in names)


def _once_it_answers(made: Cluster, process: subprocess.Popen[bytes], log: Path) -> Cluster:
    deadline = time.monotonic() + 30
    while True:
        try:
            made.connect().close()
            return made
        except psycopg.OperationalError as error:
            if process.poll() is not None or time.monotonic() > deadline:
                raise SetupError(f"PostgreSQL did not start: {tail(log, 1) or error}") from error
            time.sleep(0.1)
