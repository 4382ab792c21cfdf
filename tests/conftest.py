"""A small cast of people and one project, made by the product's own tables."""

import gc
import os
import sys
from collections.abc import Iterator
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import pytest
from django.core.management.commands import flush
from django.db import connection
from django.db.backends.postgresql.operations import DatabaseOperations

from feedback.models import Project, User
from tests.audited_writes import all_requests_watched
from tests.database import prepare_template
from tests.factories import person


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Give each test process its share of the long tests first: otherwise the last of them would run alone.

    xdist splits the list into as many equal parts as there are processes; one that is done takes from the others' ends.
    The long tests of a file stay together, because of their shared fixtures.
    """
    long = [item for item in items if item.get_closest_marker("process") or item.get_closest_marker("slow")]
    chosen = {id(item) for item in long}
    short = iter([item for item in items if id(item) not in chosen])
    parts: list[list[pytest.Item]] = [[] for _ in range(getattr(config, "workerinput", {}).get("workercount", 1))]
    for number, (_file, of_file) in enumerate(groupby(long, key=lambda item: item.path)):
        parts[number % len(parts)].extend(of_file)
    for number, part in enumerate(parts):
        size = len(items) * (number + 1) // len(parts) - len(items) * number // len(parts)
        part.extend(islice(short, max(0, size - len(part))))
    items[:] = [item for part in parts for item in part] + list(short)


def pytest_collection_finish() -> None:
    """Keep the garbage collector from going through all imported modules again and again: 6 % of the CPU time."""
    gc.collect()
    gc.freeze()


_running: list[pytest.Item] = []  # the test that runs in this process, if any


LARGE = "relkind = 'r' AND relnamespace = 'public'::regnamespace AND pg_relation_size(oid) > 500000"


@pytest.fixture(autouse=True)
def _rolled_back_rows_are_removed(django_db_blocker):
    """Vacuum the tables that tests have filled and rolled back: later tests would read all those pages."""
    yield
    if connection.connection is None or connection.in_atomic_block or not os.environ.get("ACCORD_EMBEDDED_DATABASE"):
        return
    with django_db_blocker.unblock(), connection.cursor() as cursor:
        cursor.execute(f"SELECT quote_ident(relname) FROM pg_class WHERE {LARGE}")
        large = [name for (name,) in cursor.fetchall()]
        if large:
            cursor.execute(f"VACUUM {', '.join(large)}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[Any]:
    _running[:] = [item]
    try:
        return (yield)
    finally:
        _running.clear()


def _refuse_unmarked_processes(event: str, arguments: tuple[Any, ...]) -> None:
    """Fail a test that starts a Python process without saying so: `test --fast` relies on the marker."""
    starts = event == "os.fork" or (event == "subprocess.Popen" and str(arguments[0]) == sys.executable)
    if starts and _running and not any(_running[0].get_closest_marker(name) for name in ("process", "browser")):
        raise RuntimeError(f"{_running[0].nodeid} starts a process: mark it with pytest.mark.process")


sys.addaudithook(_refuse_unmarked_processes)


@pytest.fixture(scope="session")
def django_db_modify_db_settings(django_db_modify_db_settings_parallel_suffix, django_db_blocker):
    """Copy the test database from a migrated one; in a cluster of somebody else's, migrate it."""
    if os.environ.get("ACCORD_EMBEDDED_DATABASE"):
        with django_db_blocker.unblock():
            connection.settings_dict["TEST"]["TEMPLATE"] = prepare_template()


KEPT_TABLES = {"auth_permission", "django_content_type"}  # the migrations fill them, and nothing else writes to them


@pytest.fixture(scope="session", autouse=True)
def _tables_are_emptied_quickly():
    """Empty the tables after a transactional test by DELETE: TRUNCATE makes new files for 180 tables and indexes.

    Foreign keys and triggers are off meanwhile, which needs a superuser, as the tests' own cluster has. The tables that
    the signal post_migrate fills are kept, because making their rows again takes half of the time of a flush.
    """

    def delete_all(operations, style, tables, *, reset_sequences=False, allow_cascade=False):
        with operations.connection.cursor() as cursor:
            cursor.execute(f"SELECT relname FROM pg_class WHERE {LARGE}")
            large = {name for (name,) in cursor.fetchall()}  # their deleted rows would slow down the tests that follow
        emptied = [table for table in tables if table not in KEPT_TABLES]
        deletes = [f"DELETE FROM {operations.quote_name(table)};" for table in emptied if table not in large]
        truncates = [f"TRUNCATE {operations.quote_name(table)} CASCADE;" for table in emptied if table in large]
        deletes = ["SET session_replication_role = replica;", *deletes, "SET session_replication_role = origin;"]
        return [" ".join([*deletes, *truncates])]  # one round trip

    with pytest.MonkeyPatch.context() as patch:
        if os.environ.get("ACCORD_EMBEDDED_DATABASE"):
            patch.setattr(DatabaseOperations, "sql_flush", delete_all)
            patch.setattr(flush, "emit_post_migrate_signal", lambda *arguments: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def _no_request_writes_without_an_audit_entry():
    """Let a test fail whose request writes what the audit log does not have, see tests/audited_writes.py."""
    with all_requests_watched():
        yield


@pytest.fixture(autouse=True)
def _passwords_are_made_quickly(settings):
    settings.PASSWORD_HASHERS = ["tests.factories.QuickHasher"]


@pytest.fixture
def project(db) -> Project:
    return Project.objects.create(slug="support", name="Support replies", guidelines="Be kind.")


@pytest.fixture
def manager(project) -> User:
    return person(project, "mona", "manager")


@pytest.fixture
def annotator(project) -> User:
    return person(project, "ann", "annotator")


@pytest.fixture
def colleague(project) -> User:
    """Another annotator of the same project."""
    return person(project, "cole", "annotator")


@pytest.fixture
def stranger(db) -> User:
    """Signed in, but a member of another project alone."""
    other = Project.objects.create(slug="other", name="Another project")
    return person(other, "stan", "manager")


@pytest.fixture(scope="session")
def no_files(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("no-files")


@pytest.fixture(autouse=True)
def plain_static_files(request, settings, no_files):
    """Let pages use the static files as they are, so that nothing has to be collected before a single test file.

    A test's client makes the middleware anew, and WhiteNoise then reads all collected files: 0.7 s for each client.
    """
    if request.node.get_closest_marker("browser") is None:
        plain = {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}
        settings.STORAGES = settings.STORAGES | {"staticfiles": plain}
        settings.STATIC_ROOT = no_files
