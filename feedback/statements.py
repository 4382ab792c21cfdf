"""SQL of the every-day path: written once, planned once a connection, its values sent beside it.

Django puts its SQL together anew for each request and writes the values into the text, so that PostgreSQL parses and
plans it anew, too. For what every label runs, that took longer than all the rest: see training/LOG.md.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, TypeVar

from django.db import DEFAULT_DB_ALIAS, NotSupportedError, connection, connections, models
from django.db.backends.postgresql.base import DatabaseWrapper, ServerBindingCursor

AnyModel = TypeVar("AnyModel", bound=models.Model)
Parameters = Sequence[Any] | Mapping[str, Any]


def run(statement: str, parameters: Parameters) -> list[tuple[Any, ...]]:
    """Its rows, of a statement that gives some. In the current transaction, if there is one."""
    here = connections[DEFAULT_DB_ALIAS]  # not `connection`, which looks it up at every dot
    here.close_if_health_check_failed()
    here.ensure_connection()
    try:
        return _rows(here, statement, parameters)
    except NotSupportedError:  # a migration has changed a column's type: the plan is refused for as long as it is kept
        if here.in_atomic_block:
            raise  # its rollback forgets every plan
        with here.cursor() as cursor:
            cursor.execute("DEALLOCATE ALL")
        return _rows(here, statement, parameters)


def _rows(here: DatabaseWrapper, statement: str, parameters: Parameters) -> list[tuple[Any, ...]]:
    with here._prepare_cursor(ServerBindingCursor(here.connection)) as cursor:
        cursor.execute(statement, parameters)
        return cursor.fetchall()


def columns(model: type[models.Model], table: str) -> str:
    """The model's columns of that table or alias, as `build` takes them."""
    return ", ".join(f"{table}.{field.column}" for field in model._meta.concrete_fields)


def width(model: type[models.Model]) -> int:
    return len(model._meta.concrete_fields)


def build(model: type[AnyModel], values: Sequence[Any]) -> AnyModel:
    """The instance of a row of its `columns`, as the ORM would have read it."""
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
