"""Imports of prompts, completions, comparisons and demonstrations.

Each function is one transaction, all or nothing, except `load`, which imports a file batch by batch.
"""

from feedback.imports.batches import Target
from feedback.imports.comparisons import AddedComparisons, add_comparisons, add_gold
from feedback.imports.completions import add_completions, add_demonstration, get_source, import_completions
from feedback.imports.lines import read_lines
from feedback.imports.loading import Report, load
from feedback.imports.prompts import AddedPrompts, add_prompts
from feedback.imports.rows import read_all, read_group
from feedback.imports.undo import (
    Undone,
    block_undo,
    delete_rows,
    find_import,
    imports_of,
    last_imports,
    record_import,
    undo_import,
)

__all__ = [
    "AddedComparisons",
    "AddedPrompts",
    "Report",
    "Target",
    "Undone",
    "add_comparisons",
    "add_completions",
    "add_demonstration",
    "add_gold",
    "add_prompts",
    "block_undo",
    "delete_rows",
    "find_import",
    "get_source",
    "import_completions",
    "imports_of",
    "last_imports",
    "load",
    "read_all",
    "read_group",
    "read_lines",
    "record_import",
    "undo_import",
]
