"""The embedded PostgreSQL: one cluster in the data folder, reached by Unix socket alone, by its owner alone."""

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
LONGEST_SOCKET = 100  # bytes of a Unix socket's path: 107 on Linux, 103 on macOS
PATIENCE = 300  # seconds: a server that was killed first goes through what it had logged
GRACE = 20  # seconds between the fast shutdown and the immediate one

# The server that this process started, and its share of the lock by which the last user is known.
runner: subprocess.Popen[bytes] | None = None
_users: IO[str] | None = None


def start(data_dir: Path, is_tended: bool = False) -> str:
    """Start the server (or join the one that runs) and return the address of its database.

    It stops with the last process that started it this way, or, tended, with this process. Takes about a second; makes
    the cluster and the database the first time. Raises SetupError.
    """
    global runner, _users
    check_cluster(cluster_of(data_dir))
    _users = (data_dir / "postgres.users").open("a")
    fcntl.flock(_users, fcntl.LOCK_SH)
    if is_tended or not is_running(data_dir):
        log(data_dir).parent.mkdir(exist_ok=True)
        with log(data_dir).open("ab") as output:
            runner = subprocess.Popen(
                command(data_dir, is_tended),
                cwd=Path(__file__).resolve().parents[2],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
    atexit.register(leave, data_dir)
    wait_until_ready(data_dir, runner)
    return address(data_dir)


def command(data_dir: Path, is_tended: bool) -> list[str]:
    return [sys.executable, "-m", "config.runtime.postgres_server", str(data_dir), *["--tended"] * is_tended]


def log(data_dir: Path) -> Path:
    return data_dir / "logs" / "database.log"


def address(data_dir: Path, database: str = DATABASE) -> str:
    return f"postgresql://{ROLE}@/{database}?host={quote(str(reachable(cluster_of(data_dir))))}"


def reachable(cluster: Path) -> Path:
    """The cluster's folder, or a short name for it where the path is too long for a Unix socket. Raises SetupError.

    The short name is a link in a folder that is open to nobody else.
    """
    if len(os.fsencode(cluster / SOCKET)) <= LONGEST_SOCKET:
        return cluster
    name = hashlib.sha256(os.fsencode(cluster)).hexdigest()[:12]
    private = Path(tempfile.gettempdir()) / f"accord-{os.geteuid()}-{name}"
    with suppress(FileExistsError):
        private.mkdir(mode=0o700)
    found = private.lstat()
    if found.st_uid != os.geteuid() or found.st_mode != 0o040700:
        raise SetupError(
            f"{private} is not a private folder of this user: remove it or choose a shorter data folder than {cluster}."
        )
    with suppress(FileExistsError):
        (private / "s").symlink_to(cluster)
    return private / "s"


def wait_until_ready(data_dir: Path, process: subprocess.Popen[bytes] | None) -> None:
    """Return when the database answers, made first if it is not there. Raises SetupError."""
    import psycopg

    deadline = time.monotonic() + PATIENCE
    while True:
        has_ended = process is not None and process.poll() is not None
        try:
            with psycopg.connect(address(data_dir, "postgres"), autocommit=True, connect_timeout=10) as connection:
                known = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchone()
                if known is None:
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
    """Stop the server unless somebody else uses it too."""
    server = postmaster(cluster_of(data_dir))
    if runner is not None and runner.poll() is None and (server is None or runner.pid != server.pid):
        runner.terminate()  # it waits for a server that others started
        runner.wait()
    assert _users is not None
    try:
        fcntl.flock(_users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    for how in (signal.SIGINT, signal.SIGQUIT):  # PostgreSQL's fast shutdown, and its immediate one
        deadline = time.monotonic() + GRACE
        if (server := postmaster(cluster_of(data_dir))) is not None:
            server.send_signal(how)
        while is_running(data_dir) and time.monotonic() < deadline:
            if runner is not None:
                runner.poll()
            time.sleep(0.02)
    _users.close()


def check_cluster(cluster: Path) -> None:
    """Raise SetupError, with the mend, when this cluster cannot be this server's."""
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
            f"with the Accord that made it, write it out with pg_dump, and read it into a new data folder."
        )
    if not (cluster / "global" / "pg_control").exists():
        raise SetupError(f"the database in {cluster} is incomplete (no global/pg_control): restore it from a backup.")


def user_name(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def check(address: str) -> None:
    """Raise SetupError, with a sentence that shows no password, unless the server answers."""
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
