"""`manage.py test`: the whole suite, on a cluster of its own beside the data."""

import os

from config import services


def run(arguments: list[str]) -> int:
    """pytest with its own data folder, so that a test run never touches what a running Accord keeps."""
    import pytest

    folder = services.data_dir() / "test"
    folder.mkdir(parents=True, exist_ok=True)
    services.take_folder(folder)
    os.environ["ACCORD_DATA"] = str(folder)
    os.environ.setdefault("SECRET_KEY", "a key for tests alone, which guards nothing")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    services.use_database(folder)
    os.chdir(services.BASE_DIR)
    return int(pytest.main([*_workers(arguments), *arguments]))


def _workers(arguments: list[str]) -> list[str]:
    """A pytest process a core for the whole suite; tests that were chosen run in this one, where a debugger works."""
    whole = all(argument.startswith("-") and not argument.startswith("-n") for argument in arguments)
    return ["-n", str(min(os.cpu_count() or 1, 4)), "--dist", "worksteal"] if whole else []
