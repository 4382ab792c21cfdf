"""The source of the project as syntax trees, for tests of its style and its imports."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path


@cache
def tree_of(file: Path) -> ast.Module:
    return ast.parse(file.read_text("utf-8"))


def statements(file: Path) -> Iterator[ast.stmt]:
    """Yield all statements of the file, nested ones too. Expressions, most of a tree, are not visited."""
    waiting: list[ast.AST] = [tree_of(file)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.stmt):
            yield node
        for field in ("body", "orelse", "finalbody", "handlers", "cases"):
            nested = getattr(node, field, [])
            waiting += nested if isinstance(nested, list) else []  # the body of a lambda is one expression
