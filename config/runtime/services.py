"""What must be true before Django starts: the data folder is ours, and there is a database."""

import fcntl
import os
import shutil
import socket
from pathlib import Path
from typing import IO

from config.runtime import postgres
from config.runtime.command_line import option
from config.runtime.errors import SetupError

BASE_DIR = Path(__file__).resolve().parents[2]
LEAST_FREE = 200 * 2**20  # bytes: below this PostgreSQL cannot be trusted to finish a checkpoint

# Held for as long as this process lives: closing the file gives the lock back.
_locks: list[IO[str]] = []


def data_dir() -> Path:
    return Path(os.environ.get("ACCORD_DATA", "").strip() or BASE_DIR / "var").resolve()


def prepare(command: str, arguments: list[str]) -> None:
    """Take the data folder for commands that serve, then start the embedded cluster unless a server is named.

    Raises SetupError with a sentence when the folder, the disk, the port or the database cannot be had.
    """
    folder = data_dir()
    make_private(folder)
    if shutil.disk_usage(folder).free < LEAST_FREE:
        raise SetupError(f"the disk that holds {folder} is full: free some space and start again.")
    if command in ("demo", "up"):
        take_folder(folder)
        host = option(arguments, "--host") or "127.0.0.1"
        check_port(host, option(arguments, "--port") or "8000")
        os.environ["ACCORD_HOST"] = host
    use_database(folder, is_tended=command in ("demo", "up"))


def make_private(folder: Path) -> None:
    """Make the data folder, and let nobody but its owner into it. No folder above it is changed. Raises SetupError."""
    os.umask(0o077)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        status = folder.stat()
        if status.st_mode & 0o002:
            raise SetupError(f"anybody can write to {folder}: choose a data folder of its own with --data.")
        names = {path.name for path in folder.iterdir()}
        if status.st_uid == os.geteuid() and (not names or names & {"secret_key", "postgres"}):
            folder.chmod(0o700)  # an earlier version of Accord left it open to be read
    except PermissionError as error:
        raise SetupError(_belongs_to_somebody(folder)) from error
    except OSError as error:
        raise SetupError(f"the data folder {folder} cannot be made ({error.strerror}).") from error


def _belongs_to_somebody(folder: Path) -> str:
    nearest = next(path for path in (folder, *folder.parents) if path.exists())
    owner, we = postgres.user_name(nearest.stat().st_uid), postgres.user_name(os.geteuid())
    return (
        f'the data folder {folder} cannot be used by the user "{we}": {nearest} belongs to "{owner}". Start Accord as '
        f"that user, or, with Accord stopped, give the folder over with `chown -R` (a copy: make it with `cp -a`)."
    )


def use_database(folder: Path, is_tended: bool = False) -> None:
    """The embedded cluster, or the server that DATABASE_URL names, checked to answer."""
    if os.environ.get("DATABASE_URL", "").strip():
        postgres.check(os.environ["DATABASE_URL"])
    else:
        os.environ["DATABASE_URL"] = postgres.start(folder, is_tended)
        os.environ["ACCORD_EMBEDDED_DATABASE"] = "1"


def take_folder(folder: Path) -> IO[str]:
    """One Accord a data folder: two supervisors would run every task of beat twice.

    Returns the open lock, for whoever wants to give it back before the process ends.
    """
    try:
        lock = (folder / "lock").open("w")
    except PermissionError as error:
        raise SetupError(_belongs_to_somebody(folder)) from error
    except OSError as error:
        raise SetupError(f"the data folder {folder} cannot be written to ({error.strerror}).") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise SetupError(
            f"another Accord already runs on {folder}: stop it, or choose another folder with --data."
        ) from None
    _locks.append(lock)
    return lock


def check_port(host: str, port: str) -> None:
    """That we could listen there, asked before anything slow is done."""
    if not port.isdecimal() or not 0 < int(port) < 65536:
        raise SetupError(f"--port is «{port}»: write a number from 1 to 65535.")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise SetupError(f"--host is «{host}», which this machine does not know ({error.strerror}).") from error
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            raise SetupError(
                f"port {port} on {host} cannot be had ({error.strerror}): stop what uses it, or choose another "
                f"with --port."
            ) from error
