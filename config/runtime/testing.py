"""`manage.py test`: the whole suite, on a cluster of its own beside the data."""

import os

from config.runtime import services


def run(arguments: list[str]) -> int:
    """pytest with its own data folder, so that a test run never touches what a running Accord keeps."""
    import pytest

    folder = services.data_dir() / "test"
    services.make_private(folder)
    services.take_folder(folder)
    os.environ["ACCORD_DATA"] = str(folder)
    os.environ.setdefault("SECRET_KEY", "a key for tests alone, which guards nothing")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    services.use_database(folder)
    os.chdir(services.BASE_DIR)
    if not _is_whole_suite(arguments):
        return int(pytest.main(arguments))  # in this one process, where a debugger works
    _collect_static_files()
    # One more than cores: browsers and programs are waited for a third of the time.
    processes = min((os.cpu_count() or 1) + 1, 4)
    return int(pytest.main(["-n", str(processes), "--dist", "worksteal", *arguments]))


def _is_whole_suite(arguments: list[str]) -> bool:
    return all(argument.startswith("-") and not argument.startswith("-n") for argument in arguments)


def _collect_static_files() -> None:
    """Before there are several processes: one that serves a page would find what another has half collected."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    import django

    from config.runtime import site

    django.setup()
    site.collect_static_files(print)
