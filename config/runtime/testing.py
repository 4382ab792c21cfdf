"""`manage.py test`: run pytest on a separate database cluster; without a path, in several processes."""

import importlib
import os
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from config.runtime import services
from config.runtime.errors import SetupError

FAST = "not browser and not process and not slow and not full"
NOT_FULL = "not full"
OPTIONS_WITH_VALUE = {
    "-m",
    "-k",
    "-p",
    "-W",
    "-o",
    "-c",
    "-r",
    "--deselect",
    "--ignore",
    "--durations",
    "--maxfail",
    "--tb",
}


def run(arguments: list[str]) -> int:
    """Run pytest in the data folder's `test/`, so that no test touches the data of a running Accord.

    `--fast` leaves out the tests marked browser, process, slow or full, and keeps the test database for the next run.
    Tests marked full run with `--full`, where the environment has CI, or by their path.
    """
    import pytest

    is_fast = "--fast" in arguments
    arguments = fast_arguments(arguments) if is_fast else chosen(arguments, is_ci=bool(os.environ.get("CI")))
    if not is_fast and NOT_FULL not in arguments:
        os.environ["ACCORD_FULL_TESTS"] = "1"  # for `tests.lengths`, in each test process
    folder = services.data_dir() / "test"
    services.make_private(folder)
    services.lock_folder(folder)
    (folder / "static").mkdir(exist_ok=True)  # WhiteNoise warns of a missing folder at each request
    os.environ["ACCORD_DATA"] = str(folder)
    # pytest keeps the test modules that it has rewritten beside the others' bytecode: else 10 s in each test process.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False
    os.environ.setdefault("SECRET_KEY", "a key for tests alone, which guards nothing")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    services.use_database(folder)
    if os.environ.get("ACCORD_EMBEDDED_DATABASE"):
        _suit_to_tests(os.environ["DATABASE_URL"])
    os.chdir(services.BASE_DIR)
    if not is_parallel(arguments):
        return int(pytest.main(arguments))  # in this one process, where a debugger works
    # Two processes more than cores: much of the time is spent waiting for browsers and programs.
    cores = os.cpu_count() or 1
    processes = min(cores if is_fast else cores + 2, 4)
    with _test_process() as specification:
        if not is_fast:
            _collect_static_files()
        return int(pytest.main(["--tx", f"{processes}*{specification}", "--dist", "worksteal", *arguments]))


def chosen(arguments: list[str], is_ci: bool) -> list[str]:
    """Return pytest's arguments: without a choice, tests marked full are left out, except with --full and in CI."""
    if "--full" in arguments:
        return [argument for argument in arguments if argument != "--full"]
    if is_ci or names_a_path(arguments) or any(argument.startswith(("-m", "-k")) for argument in arguments):
        return arguments
    print("Tests marked full are left out, and some others are shorter: --full runs all, as CI does.", flush=True)
    return ["-m", NOT_FULL, *arguments]


def fast_arguments(arguments: list[str]) -> list[str]:
    if any(argument.startswith("-m") for argument in arguments):
        raise SetupError(f'--fast stands for -m "{FAST}": leave out one of --fast and -m.')
    return ["-m", FAST, "--reuse-db", *(argument for argument in arguments if argument != "--fast")]


def is_parallel(arguments: list[str]) -> bool:
    """Return whether the arguments name neither a path nor a number of processes: then all cores are used."""
    return not any(argument.startswith(("-n", "--numprocesses")) for argument in arguments) and not names_a_path(
        arguments
    )


def names_a_path(arguments: list[str]) -> bool:
    previous = ["", *arguments]
    positional = [
        argument
        for argument, before in zip(arguments, previous, strict=False)
        if not argument.startswith("-") and before not in OPTIONS_WITH_VALUE
    ]
    return any(Path(name.partition("::")[0]).exists() for name in positional)


def _test_process() -> AbstractContextManager[str]:
    """Yield pytest-xdist's specification of a test process: on Linux a fork, which saves seconds of imports."""
    if sys.platform != "linux":
        return nullcontext("popen")
    return importlib.import_module("tests.forked_workers").forking()


def _suit_to_tests(address: str) -> None:
    """Turn off what only slows tests down: their databases need not survive a power cut.

    An automatic analysis that finds a table whose rows are not committed yet notes many pages without rows. The plans
    of the test that runs then read such tables whole, in nested loops: in CI, half an hour instead of half a minute.
    """
    import psycopg

    with psycopg.connect(address, autocommit=True) as connection:
        for setting in ("fsync", "synchronous_commit", "full_page_writes", "autovacuum"):
            connection.execute(f"ALTER SYSTEM SET {setting} = off")
        connection.execute("SELECT pg_reload_conf()")


def _collect_static_files() -> None:
    """Collect before the processes start: otherwise one would serve files that another has not finished writing."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    import django

    from config.runtime import site

    django.setup()
    site.collect_static_files(print)
