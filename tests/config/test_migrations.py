"""Migrations run forwards and backwards, and remove everything they made."""

import os

import pytest
from django.core.management import call_command
from django.db import connection

from tests.database import using_database

DATABASE_OBJECTS = """
SELECT 'table ' || relname FROM pg_class WHERE relname LIKE 'feedback\\_%' OR relname LIKE 'training\\_%'
UNION ALL SELECT 'function ' || proname FROM pg_proc WHERE proname LIKE 'accord\\_%'
"""


@pytest.fixture
def migrated_database(django_db_modify_db_settings, django_db_blocker):
    """Let Django use a database of the test's own, which all migrations have made: a copy of the tests' template."""
    name, template = f"accord_copy_{os.getpid()}", connection.settings_dict["TEST"]["TEMPLATE"]
    with django_db_blocker.unblock():
        with connection._nodb_cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {name} TEMPLATE {template or 'template0'}")
        with using_database(name):
            call_command("migrate", verbosity=0, interactive=False)
            yield
        with connection._nodb_cursor() as cursor:
            cursor.execute(f"DROP DATABASE {name}")


def database_objects() -> set[str]:
    with connection.cursor() as cursor:
        cursor.execute(DATABASE_OBJECTS)
        return {name for (name,) in cursor.fetchall()}


@pytest.mark.full
@pytest.mark.slow
def test_the_tables_can_be_removed_and_made_again(migrated_database):
    made = database_objects()
    assert {"function accord_are_dense", "function accord_give_back", "table feedback_ranking"} <= made
    call_command("migrate", "feedback", "zero", verbosity=0, interactive=False)
    assert database_objects() == set()
    call_command("migrate", verbosity=0, interactive=False)
    assert database_objects() == made
