"""The data folder, the port and the database, made ready before Django starts."""

import fcntl
import os
import shutil
import socket
from pathlib import Path
from typing import IO

from config.runtime import broker, postgres
from config.runtime.command_line import option, runs_service
from config.runtime.errors import SetupError

BASE_DIR = Path(__file__).resolve().parents[2]
MIN_FREE_BYTES = 200 * 2**20  # PostgreSQL may be unable to finish a checkpoint with less
SERVICE_COMMANDS = ("demo", "up")

# Open files of the locks that this process holds; closing a file releases its lock.
_locks: list[IO[str]] = []


def data_dir() -> Path:
    return Path(os.environ.get("ACCORD_DATA", "").strip() or BASE_DIR / "var").resolve()


def prepare(command: str, arguments: list[str]) -> None:
    """Make the data folder and the database ready for a command of Django.

    `demo` and `up` also lock the folder, and check that the broker answers and the web service's port is free. Raises
    SetupError.
    """
    folder = data_dir()
    is_service = command in SERVICE_COMMANDS
    make_private(folder)
    if shutil.disk_usage(folder).free < MIN_FREE_BYTES:
        raise SetupError(f"the disk that holds {folder} is full: free some space and start again.")
    if is_service:
        lock_folder(folder)
        host = option(arguments, "--host") or "127.0.0.1"
        if runs_service("web", command, arguments):
            check_port(host, option(arguments, "--port") or "8000")
        os.environ["ACCORD_HOST"] = host
        broker.check(os.environ.get("CELERY_BROKER_URL", "").strip())
    use_database(folder, is_supervised=is_service)


def make_private(folder: Path) -> None:
    """Make the data folder and close it to other users; folders above it are not changed. Raises SetupError."""
    os.umask(0o077)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        status = folder.stat()
        if status.st_mode & 0o002:
            raise SetupError(f"anybody can write to {folder}: choose another data folder with --data.")
        names = {path.name for path in folder.iterdir()}
        if status.st_uid == os.geteuid() and (not names or names & {"secret_key", "postgres"}):
            folder.chmod(0o700)  # version 0.1 left it readable for all
    except PermissionError as error:
        raise SetupError(_belongs_to_somebody(folder)) from error
    except OSError as error:
        raise SetupError(f"the data folder {folder} cannot be made ({error.strerror}).") from error


def _belongs_to_somebody(folder: Path) -> str:
    nearest = next(path for path in (folder, *folder.parents) if path.exists())
    owner, user = postgres.user_name(nearest.stat().st_uid), postgres.user_name(os.geteuid())
    return (
        f'the data folder {folder} cannot be used by the user "{user}": {nearest} belongs to "{owner}". Start Accord '
        f"as that user, or, with Accord stopped, change the owner with `chown -R` (make copies with `cp -a`)."
    )


def use_database(folder: Path, is_supervised: bool = False) -> None:
    """Check the server that DATABASE_URL names, or start the embedded one and set DATABASE_URL. Raises SetupError."""
    if os.environ.get("DATABASE_URL", "").strip():
        postgres.check(os.environ["DATABASE_URL"])
    else:
        os.environ["DATABASE_URL"] = postgres.start(folder, is_supervised)
        os.environ["ACCORD_EMBEDDED_DATABASE"] = "1"


def lock_folder(folder: Path) -> list[IO[str]]:
    """Let one supervisor of this host use the data folder. Raises SetupError if another one does.

    Two supervisors of a host would run beat twice. The embedded database admits one host alone: its supervisor holds
    `lock` exclusively. Hosts with a database server may share the folder: their supervisors share `lock`, and each
    holds a lock named after its host, because some network file systems pass flock on between hosts. Returns the open
    files; a lock is held until its file is closed or the process ends.
    """
    if os.environ.get("DATABASE_URL", "").strip():
        locks = [_lock(folder, "lock", fcntl.LOCK_SH), _lock(folder, f"lock-{socket.gethostname()}", fcntl.LOCK_EX)]
    else:
        locks = [_lock(folder, "lock", fcntl.LOCK_EX)]
    _locks.extend(locks)
    return locks


def _lock(folder: Path, name: str, kind: int) -> IO[str]:
    try:
        lock = (folder / name).open("a")
    except PermissionError as error:
        raise SetupError(_belongs_to_somebody(folder)) from error
    except OSError as error:
        raise SetupError(f"the data folder {folder} cannot be written to ({error.strerror}).") from error
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        raise SetupError(
            f"another Accord already runs on {folder}: stop it, or choose another folder with --data."
        ) from None
    return lock


def check_port(host: str, port: str) -> None:
    """Raise SetupError unless the address can be listened on: before anything slow is done."""
    if not port.isdecimal() or not 0 < int(port) < 65536:
        raise SetupError(f'--port is "{port}": write a number from 1 to 65535.')
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise SetupError(f'--host is "{host}", which this machine does not know ({error.strerror}).') from error
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            raise SetupError(
                f"port {port} on {host} cannot be used ({error.strerror}): stop the program that uses it, or choose "
                f"another port with --port."
            ) from error
