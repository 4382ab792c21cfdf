"""The test databases are copies of one migrated database: migrating takes ten seconds of CPU in each process.

The template lies in the tests' own cluster, and is made again when a migration or SQL file changes.
"""

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import django
import psycopg
from django.apps import apps
from django.conf import settings
from django.core.management import call_command
from django.db import connection

from config.runtime import postgres

PREFIX = "accord_template_"
LOCK = 20261128  # of the processes that need the template at the same time


def prepare_template() -> str:
    """Return the name of a database with all migrations applied, made if it does not exist."""
    name = PREFIX + _digest_of_migrations()
    with psycopg.connect(postgres.address(settings.DATA_DIR, "postgres"), autocommit=True) as server:
        server.execute("SELECT pg_advisory_lock(%s)", [LOCK])
        known = {known for (known,) in server.execute("SELECT datname FROM pg_database WHERE datname LIKE 'accord%'")}
        if name not in known:
            for outdated in known:
                if outdated.startswith(PREFIX):
                    server.execute(f"DROP DATABASE {outdated}")
            draft = f"{PREFIX}draft"
            server.execute(f"CREATE DATABASE {draft} TEMPLATE template0")
            with using_database(draft):
                call_command("migrate", verbosity=0, interactive=False)
            server.execute(f"ALTER DATABASE {draft} RENAME TO {name}")
    return name


def _digest_of_migrations() -> str:
    digest = hashlib.sha256(f"{django.__version__} {settings.INSTALLED_APPS}".encode())
    for folder in sorted(app.path for app in apps.get_app_configs() if app.path.startswith(str(settings.BASE_DIR))):
        ours = settings.BASE_DIR / folder
        for file in sorted([*ours.glob("migrations/*.py"), *ours.glob("sql/*.sql")]):
            digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()[:16]


@contextmanager
def using_database(name: str) -> Iterator[None]:
    """Let Django use another database of the same server."""
    before = connection.settings_dict["NAME"]
    connection.close()
    connection.settings_dict["NAME"] = name
    try:
        yield
    finally:
        connection.close()
        connection.settings_dict["NAME"] = before


def end_connection_by_server() -> int:
    """End this thread's connection from another one, as a restart of the server does. Returns its process's number."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        (process,) = cursor.fetchone()

    def end() -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(%s, 10000)", [process])
        connection.close()

    other = threading.Thread(target=end)
    other.start()
    other.join()
    return process
