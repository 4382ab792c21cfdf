"""Functions and triggers: migrations give an existing database the functions of today's files."""

import pytest
from django.db.migrations.loader import MigrationLoader

from feedback import sql
from feedback.sql import LoadFile, digest_of

FOLDER = sql.Path(sql.__file__).parent
FILES = sorted(file.stem for file in FOLDER.glob("*.sql"))


def migrations_that_load(name: str) -> list[tuple[str, str]]:
    """Return (migration, digest that it gives) in the order in which they run."""
    graph = MigrationLoader(None).graph
    order = dict.fromkeys(key for leaf in graph.leaf_nodes("feedback") for key in graph.forwards_plan(leaf))
    return [
        (key[1], operation.digest)
        for key in order
        for operation in graph.nodes[key].operations
        if isinstance(operation, LoadFile) and operation.name == name
    ]


@pytest.mark.parametrize("name", FILES)
def test_the_last_migration_that_loads_a_file_has_its_digest(name):
    loaded = migrations_that_load(name)
    assert loaded, f'{name}.sql is loaded by no migration: add one with sql.load("{name}", "{digest_of(name)}")'
    migration, digest = loaded[-1]
    assert digest == digest_of(name), (
        f"{name}.sql has changed since {migration}: existing databases would keep its former functions. "
        f'Add a migration with sql.replace("{name}", "{digest_of(name)}")'
    )


def test_a_changed_statement_changes_the_digest_and_a_comment_does_not(tmp_path, monkeypatch):
    monkeypatch.setattr(sql, "__file__", str(tmp_path / "__init__.py"))
    digests = []
    for text in ("SELECT 1;\n-- REVERSE\nSELECT 2;", "-- why\nSELECT  1; -- here\n-- REVERSE\nSELECT 2;", "SELECT 3;"):
        (tmp_path / "one.sql").write_text(text)
        digests.append(digest_of("one"))
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.django_db
@pytest.mark.parametrize("name", FILES)
def test_the_database_has_the_functions_of_the_file(name):
    """A new database has run the file from its first migration on, and every later one on top of it."""
    from django.db import connection

    text = (FOLDER / f"{name}.sql").read_text("utf-8").partition(sql.REVERSE)[0]
    bodies = [part.partition("\nEND $$")[0].strip() for part in text.split("AS $$\n")[1:]]
    assert bodies
    with connection.cursor() as cursor:
        cursor.execute("SELECT prosrc FROM pg_proc WHERE proname LIKE 'accord\\_%'")
        sources = [" ".join(source.split()) for (source,) in cursor.fetchall()]
    for body in bodies:
        assert any(source.startswith(" ".join(body.split())) for source in sources), body
