"""Expressions of full-text search. `feedback/sql/search.sql` has their functions."""

from typing import Any

from django.contrib.postgres.expressions import ArraySubquery
from django.contrib.postgres.search import SearchQueryField, SearchVectorField
from django.db.models import BooleanField, Expression, F, Func, QuerySet, Value
from django.db.models.expressions import Col


class SearchVector(Func):
    """The words of a text column, computed when it is read: for indexes of short texts."""

    function = "accord_search_vector"
    output_field = SearchVectorField()


class SearchQuery(Func):
    """The query of what a person typed: words, "a phrase", or, -not."""

    function = "accord_search_query"
    output_field = SearchQueryField()

    def __init__(self, typed: str) -> None:
        super().__init__(Value(typed))


class Matches(Func):
    """The condition that a text contains what a person typed."""

    template = "%(expressions)s"
    arg_joiner = " @@ "
    output_field = BooleanField()
    conditional = True

    def __init__(self, vector: Expression, typed: str) -> None:
        super().__init__(vector, SearchQuery(typed))


class IsOneOf(Func):
    """The condition that a key is among those of a query, which PostgreSQL runs once and before all else."""

    template = "%(expressions)s)"
    arg_joiner = " = ANY("
    output_field = BooleanField()
    conditional = True

    def __init__(self, key: Expression | F, keys: QuerySet[Any]) -> None:
        super().__init__(key, ArraySubquery(keys))


class StoredVector(Func):
    """The column `search` of the table that a field, such as `prompt__messages`, belongs to."""

    output_field = SearchVectorField()

    def as_sql(self, compiler: Any, connection: Any, **extra_context: Any) -> tuple[str, tuple[Any, ...]]:
        (column,) = self.get_source_expressions()
        assert isinstance(column, Col)
        return f'{compiler.quote_name_unless_alias(column.alias)}."search"', ()
