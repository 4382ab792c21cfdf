"""Prepared statements return the same as the ORM, and survive a restart of the server."""

import threading

import pytest
from django.db import DatabaseError, connection, transaction

from feedback import statements
from feedback.models import Project, Ranking
from tests.database import end_connection_by_server
from tests.factories import rank_next


@pytest.mark.django_db(transaction=True)
def test_the_first_request_after_the_server_was_restarted_is_answered():
    assert statements.run("SELECT %s + 1", [1]) == [(2,)]
    end_connection_by_server()
    connection.close_if_unusable_or_obsolete()  # as Django does when a request begins
    assert statements.run("SELECT %s + 1", [1]) == [(2,)]


@pytest.mark.django_db(transaction=True)
def test_a_broken_connection_within_a_request_raises_djangos_error():
    statements.run("SELECT 1", [])
    end_connection_by_server()
    with pytest.raises(DatabaseError):
        statements.run("SELECT 1", [])
    connection.close()


@pytest.fixture
def migrated(transactional_db):
    """Make a table of one row; return a function that changes its column's type from another connection."""

    def execute_on_other_connection(statement):
        def execute():
            with connection.cursor() as cursor:
                cursor.execute(statement)
            connection.close()

        other = threading.Thread(target=execute)
        other.start()
        other.join()

    execute_on_other_connection("CREATE TABLE migrated AS SELECT 1::smallint AS size")
    yield lambda: execute_on_other_connection("ALTER TABLE migrated ALTER COLUMN size TYPE integer")
    connection.close()
    execute_on_other_connection("DROP TABLE migrated")


@pytest.mark.slow
def test_a_column_is_still_read_after_a_migration_changed_its_type(migrated):
    for _ in range(3):
        assert statements.run("SELECT size FROM migrated", []) == [(1,)]
    migrated()
    assert statements.run("SELECT size FROM migrated", []) == [(1,)]


def test_a_transaction_fails_once_after_a_migration_changed_its_plan(migrated):
    def in_a_transaction():
        with transaction.atomic():
            return statements.run("SELECT size FROM migrated", [])

    for _ in range(3):
        assert in_a_transaction() == [(1,)]
    migrated()
    with pytest.raises(DatabaseError):
        in_a_transaction()
    assert in_a_transaction() == [(1,)]


@pytest.mark.django_db
def test_a_refused_statement_leaves_the_transaction_around_it_whole():
    with pytest.raises(DatabaseError), transaction.atomic():
        statements.run("SELECT 1 / %s", [0])
    assert statements.run("SELECT 1 / %s", [1]) == [(1,)]


@pytest.mark.django_db
def test_rows_become_the_instances_that_the_orm_reads(ann, work):
    Project.objects.update(attributes=["helpful", "kind"], flags=["rude"])
    work(1)
    rank_next(ann, flags=["rude"], ratings={"kind": [5, None]})
    for model in (Project, Ranking):
        wanted = model.objects.order_by("pk").last()
        table = model._meta.db_table
        (row,) = statements.run(f"SELECT {statements.columns(model, table)} FROM {table} WHERE id = %s", [wanted.pk])
        found = statements.build(model, row)
        assert {**vars(found), "_state": None} == {**vars(wanted), "_state": None}
        assert not found._state.adding
        assert len(row) == statements.width(model)
