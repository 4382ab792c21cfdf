"""Prepared statements for the labelling hot path: server-side binding, planned once per connection.

Django builds SQL again for each request and interpolates the values into its text, so PostgreSQL parses and plans each
statement again. For the statements of every label this took longer than all the rest (figures in training/LOG.md). Use
the ORM elsewhere.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, TypeVar

from django.db import DEFAULT_DB_ALIAS, NotSupportedError, connection, connections, models
from django.db.backends.postgresql.base import DatabaseWrapper, ServerBindingCursor

AnyModel = TypeVar("AnyModel", bound=models.Model)
Parameters = Sequence[Any] | Mapping[str, Any]


def run(statement: str, parameters: Parameters) -> list[tuple[Any, ...]]:
    """Execute a statement that returns rows, in the current transaction if there is one, and return them."""
    here = connections[DEFAULT_DB_ALIAS]  # not `connection`, a proxy that looks it up at each attribute access
    here.close_if_health_check_failed()
    here.ensure_connection()
    try:
        return _rows(here, statement, parameters)
    except NotSupportedError:  # a migration has changed a column's type: PostgreSQL refuses the cached plan
        if here.in_atomic_block:
            raise  # the transaction is aborted; its rollback discards all plans
        with here.cursor() as cursor:
            cursor.execute("DEALLOCATE ALL")
        return _rows(here, statement, parameters)


def _rows(here: DatabaseWrapper, statement: str, parameters: Parameters) -> list[tuple[Any, ...]]:
    with here._prepare_cursor(ServerBindingCursor(here.connection)) as cursor:
        cursor.execute(statement, parameters)
        return cursor.fetchall()


def columns(model: type[models.Model], table: str) -> str:
    """Return the model's columns of a table or alias for a SELECT, in the order that `build` expects."""
    return ", ".join(f"{table}.{field.column}" for field in model._meta.concrete_fields)


def width(model: type[models.Model]) -> int:
    return len(model._meta.concrete_fields)


def build(model: type[AnyModel], values: Sequence[Any]) -> AnyModel:
    """Return the model instance for a row of its `columns`, as the ORM would return it."""
    names, converted = _fields(model)  # type: ignore[arg-type]  # a class can be hashed
    if converted:
        values = list(values)
        for place, convert in converted:
            values[place] = convert(values[place], None, connection)
    return model.from_db(DEFAULT_DB_ALIAS, names, values)


@cache
def _fields(model: type[models.Model]) -> tuple[list[str], list[tuple[int, Any]]]:
    fields = model._meta.concrete_fields
    converted = [(place, field.from_db_value) for place, field in enumerate(fields) if hasattr(field, "from_db_value")]
    return [field.attname for field in fields], converted
