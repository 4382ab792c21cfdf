"""Prompts, completions, comparisons and demonstrations coming in. Each function is one transaction: all or nothing."""

from feedback.imports.batches import Undone, find_import, hold_intake, last_imports, record_import, undo_import
from feedback.imports.comparisons import Compared, add_comparisons, add_gold
from feedback.imports.completions import add_completions, add_demonstration, get_source, import_completions
from feedback.imports.lines import read_lines
from feedback.imports.prompts import AddedPrompts, add_prompts
from feedback.imports.rows import read_all, read_group

__all__ = [
    "AddedPrompts",
    "Compared",
    "Undone",
    "add_comparisons",
    "add_completions",
    "add_demonstration",
    "add_gold",
    "add_prompts",
    "find_import",
    "get_source",
    "hold_intake",
    "import_completions",
    "last_imports",
    "read_all",
    "read_group",
    "read_lines",
    "record_import",
    "undo_import",
]
