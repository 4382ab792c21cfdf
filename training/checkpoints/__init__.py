"""Checkpoints: import, check, promotion and roll-back. Each function is one transaction."""

from training.checkpoints.imports import check_again, check_may_import, import_checkpoint, settle_check
from training.checkpoints.promotions import (
    check_usable,
    next_priority,
    promote,
    roll_back,
    served,
    served_before,
)

__all__ = [
    "check_again",
    "check_may_import",
    "check_usable",
    "import_checkpoint",
    "next_priority",
    "promote",
    "roll_back",
    "served",
    "served_before",
    "settle_check",
]
