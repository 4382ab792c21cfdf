"""Prompts, completions, comparisons and demonstrations coming in. Each function is one transaction: all or nothing."""

from feedback.intake.comparisons import Compared, add_comparisons, add_gold
from feedback.intake.completions import add_completions, add_demonstration, get_source, import_completions
from feedback.intake.lines import read_lines
from feedback.intake.prompts import AddedPrompts, add_prompts
from feedback.intake.rows import read_all, read_group

__all__ = [
    "AddedPrompts",
    "Compared",
    "add_comparisons",
    "add_completions",
    "add_demonstration",
    "add_gold",
    "add_prompts",
    "get_source",
    "import_completions",
    "read_all",
    "read_group",
    "read_lines",
]
