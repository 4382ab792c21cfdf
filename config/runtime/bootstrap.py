"""From a bare Python to a running command: `.venv`, packages, database, Django. Standard library only.

`main` runs twice. Under the machine's Python it prepares `.venv` and replaces itself by the same command under that
Python; there it starts the embedded PostgreSQL if the command needs it, and calls Django.
"""

import os
import signal
import sys
from pathlib import Path
from types import FrameType

from config.runtime import packages
from config.runtime.command_line import choose_data_dir, runs_service
from config.runtime.errors import SetupError

# Commands that need the front-end packages, besides those that run the web service.
NEED_FRONT_END = {"test", "runserver", "collectstatic", "bench"}
NEED_NO_DATABASE = {"help", "version", "--help", "--version", "-h", "bench", "collectstatic"}
NEED_NO_DATABASE |= {"makemessages", "compilemessages"}
# Groups of packages, a file of that name each in requirements and requirements/lock. `web` is for every command.
NEED_LEARNER = {"serve", "check_model", "import_checkpoint"}
NEED_ALL = {"test", "lint", "bench"}


def main(argv: list[str]) -> int:
    """Run a command of manage.py and return its exit status."""
    command = argv[1] if len(argv) > 1 else "help"
    try:
        prepare(command, argv[2:])
        if Path(sys.prefix).resolve() != packages.VENV.resolve():
            os.execv(packages.PYTHON, [str(packages.PYTHON), *argv])
        return run(command, argv)
    except SetupError as error:
        print(f"error: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    return 1


def prepare(command: str, arguments: list[str]) -> None:
    """Install the packages that the command needs and that are missing."""
    groups = groups_needed(command, arguments)
    needs_front_end = command in NEED_FRONT_END or runs_service("web", command, arguments)
    if not packages.missing_groups(groups) and not (needs_front_end and packages.front_end_is_missing()):
        return  # without the lock, whose file cannot be opened in a folder that is read-only
    with packages.setup_lock():
        if not packages.PYTHON.exists():
            packages.make_venv()
        packages.install_python_packages(packages.missing_groups(groups))
        if needs_front_end and packages.front_end_is_missing():
            packages.install_python_packages(packages.missing_groups(["node"]))
            packages.install_front_end_packages()


def groups_needed(command: str, arguments: list[str]) -> list[str]:
    """Return the groups of Python packages that the command needs."""
    if command in NEED_ALL:
        return ["web", "learner", "postgres", "dev"]
    groups = ["web"]
    if command in NEED_LEARNER or runs_service("gpu", command, arguments):
        groups.append("learner")
    if command not in NEED_NO_DATABASE and not os.environ.get("DATABASE_URL", "").strip():
        groups.append("postgres")
    return groups


def run(command: str, argv: list[str]) -> int:
    """Run the test command or Django's, inside `.venv`, and return the exit status."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, exit_on_signal)
    from config.runtime import services

    argv = [*argv[:2], *choose_data_dir(argv[2:])]
    if command == "test":
        from config.runtime import testing

        return testing.run(argv[2:])
    from django.core.exceptions import ImproperlyConfigured
    from django.core.management import execute_from_command_line

    try:
        if command in NEED_NO_DATABASE or "--help" in argv:
            # These sign nothing, and must work before anything is set up.
            os.environ.setdefault("SECRET_KEY", "a key without a purpose, for commands that sign nothing")
        else:
            services.prepare(command, argv[2:])
        execute_from_command_line(argv)
    except ImproperlyConfigured as error:
        raise SetupError(str(error)) from error
    return 0


def exit_on_signal(number: int, frame: FrameType | None) -> None:
    """Exit by an exception: the default action runs no exit handlers and leaves the embedded PostgreSQL running."""
    sys.exit(128 + number)
