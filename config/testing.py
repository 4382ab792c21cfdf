"""`manage.py test`: the whole suite, on a cluster of its own beside the data."""

import os
from pathlib import Path

from config import postgres, services


def run_tests(arguments: list[str]) -> int:
    """pytest with its own data folder, so that a test run never touches what a running Accord keeps."""
    import pytest

    folder = services.data_dir() / "test"
    os.environ["ACCORD_DATA"] = str(folder)
    os.environ.setdefault("SECRET_KEY", "a key for tests alone, which guards nothing")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    folder.mkdir(parents=True, exist_ok=True)
    postgres.use(folder)
    os.chdir(Path(__file__).resolve().parent.parent)
    return int(pytest.main(arguments))
