"""The embedded PostgreSQL: one cluster in the data folder, reachable by its owner through a Unix socket only."""

import atexit
import fcntl
import hashlib
import os
import pwd
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import IO
from urllib.parse import quote

from config.runtime.errors import SetupError
from config.runtime.postgres_server import ROLE, SOCKET, VERSION, cluster_of, is_running, postmaster, server_user

DATABASE = "accord"
MAX_SOCKET_PATH = 100  # bytes: the system's limit is 107 on Linux, 103 on macOS
START_TIMEOUT = 300  # seconds: after a crash the server first replays its write-ahead log
FAST_SHUTDOWN_TIMEOUT = 20  # seconds until the immediate shutdown

# The server that this process started, and this process's shared lock on the file of the server's users.
runner: subprocess.Popen[bytes] | None = None
_users: IO[str] | None = None


def start(data_dir: Path, is_supervised: bool = False) -> str:
    """Start the server, or join the one that runs, and return the address of its database.

    A supervised server stops with this process, any other with the last process that uses it. Takes about a second; the
    first time it makes the cluster and the database. Raises SetupError.
    """
    global runner, _users
    check_cluster(cluster_of(data_dir))
    _users = (data_dir / "postgres.users").open("a")
    fcntl.flock(_users, fcntl.LOCK_SH)
    if is_supervised or not is_running(data_dir):
        log(data_dir).parent.mkdir(exist_ok=True)
        with log(data_dir).open("ab") as output:
            runner = subprocess.Popen(
                command(data_dir, is_supervised),
                cwd=Path(__file__).resolve().parents[2],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
    atexit.register(leave, data_dir)
    wait_until_ready(data_dir, runner)
    return address(data_dir)


def command(data_dir: Path, is_supervised: bool) -> list[str]:
    return [sys.executable, "-m", "config.runtime.postgres_server", str(data_dir), *["--supervised"] * is_supervised]


def log(data_dir: Path) -> Path:
    return data_dir / "logs" / "database.log"


def address(data_dir: Path, database: str = DATABASE) -> str:
    return f"postgresql://{ROLE}@/{database}?host={quote(str(socket_folder(cluster_of(data_dir))))}"


def socket_folder(cluster: Path) -> Path:
    """Return the cluster's folder, or a short link to it where the path is too long for a Unix socket.

    The link lies in a folder that only this user can open. Raises SetupError if others can open it.
    """
    if len(os.fsencode(cluster / SOCKET)) <= MAX_SOCKET_PATH:
        return cluster
    name = hashlib.sha256(os.fsencode(cluster)).hexdigest()[:12]
    private = Path(tempfile.gettempdir()) / f"accord-{os.geteuid()}-{name}"
    with suppress(FileExistsError):
        private.mkdir(mode=0o700)
    status = private.lstat()
    if status.st_uid != os.geteuid() or status.st_mode != 0o040700:
        raise SetupError(
            f"{private} is not a private folder of this user: remove it or choose a shorter data folder than {cluster}."
        )
    with suppress(FileExistsError):
        (private / "s").symlink_to(cluster)
    return private / "s"


def wait_until_ready(data_dir: Path, process: subprocess.Popen[bytes] | None) -> None:
    """Wait until the database accepts connections; create it if it does not exist. Raises SetupError."""
    import psycopg

    deadline = time.monotonic() + START_TIMEOUT
    while True:
        has_ended = process is not None and process.poll() is not None
        try:
            with psycopg.connect(address(data_dir, "postgres"), autocommit=True, connect_timeout=10) as connection:
                exists = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchone()
                if exists is None:
                    connection.execute(f"CREATE DATABASE {DATABASE}")
                return
        except psycopg.errors.DuplicateDatabase:
            return
        except psycopg.OperationalError as error:
            if has_ended or time.monotonic() > deadline:
                reason = _last_line(log(data_dir)) if process is not None else str(error).strip()
                raise SetupError(f"the embedded PostgreSQL did not start: {reason} (see {log(data_dir)}).") from error
        time.sleep(0.05)


def leave(data_dir: Path) -> None:
    """Stop the server unless another process uses it."""
    server = postmaster(cluster_of(data_dir))
    if runner is not None and runner.poll() is None and (server is None or runner.pid != server.pid):
        runner.terminate()  # it still waits for the lock of a server that another process started
        runner.wait()
    assert _users is not None
    try:
        fcntl.flock(_users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    for number in (signal.SIGINT, signal.SIGQUIT):  # PostgreSQL's fast and immediate shutdown
        deadline = time.monotonic() + FAST_SHUTDOWN_TIMEOUT
        if (server := postmaster(cluster_of(data_dir))) is not None:
            server.send_signal(number)
        while is_running(data_dir) and time.monotonic() < deadline:
            if runner is not None:
                runner.poll()
            time.sleep(0.02)
    _users.close()


def check_cluster(cluster: Path) -> None:
    """Raise SetupError, with the remedy, if the cluster has another owner or version, or is incomplete."""
    if not cluster.exists():
        return
    user = server_user()
    try:
        inside = [cluster, *(cluster / name for name in ("PG_VERSION", "global", "global/pg_control"))]
        owner = next((path.stat().st_uid for path in inside if path.exists() and path.stat().st_uid != user.pw_uid), -1)
        version = (cluster / "PG_VERSION").read_text().strip() if (cluster / "PG_VERSION").exists() else ""
    except PermissionError:
        owner, version = cluster.stat().st_uid, ""
    is_empty = not version and owner < 0 and not (cluster / "base").exists()
    if is_empty:
        return
    if owner >= 0:
        raise SetupError(
            f'the database in {cluster} belongs to the user "{user_name(owner)}" and would run as "{user.pw_name}": '
            f"with Accord stopped, run `chown -R {user.pw_name} {cluster}`, or copy the folder again with `cp -a`."
        )
    if version != str(VERSION):
        raise SetupError(
            f'the database in {cluster} was made by PostgreSQL "{version}" and this is PostgreSQL {VERSION}: start it '
            f"with the Accord that made it, export it with pg_dump, and restore it into a new data folder."
        )
    if not (cluster / "global" / "pg_control").exists():
        raise SetupError(f"the database in {cluster} is incomplete (no global/pg_control): restore it from a backup.")


def user_name(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def check(address: str) -> None:
    """Raise SetupError unless the server accepts a connection; the message contains no password."""
    import psycopg
    from psycopg.conninfo import conninfo_to_dict

    try:
        parts = conninfo_to_dict(address)
        psycopg.connect(address, connect_timeout=10).close()
    except psycopg.ProgrammingError as error:
        raise SetupError(f"DATABASE_URL is not a PostgreSQL address ({str(error).strip()}).") from error
    except psycopg.OperationalError as error:
        where = f"{parts.get('dbname', '')} on {parts.get('host', 'localhost')}:{parts.get('port', 5432)}"
        reason = str(error).strip().splitlines()[-1].strip()
        raise SetupError(f"the database {where} (DATABASE_URL) cannot be reached: {reason}") from error


def _last_line(path: Path) -> str:
    lines = path.read_text(errors="replace").splitlines() if path.exists() else []
    return lines[-1] if lines else ""
