"""Checkpoints: import, check, promotion, roll-back, retirement. Each function is one transaction."""

from training.checkpoints.imports import check_again, check_may_import, import_checkpoint, settle_check
from training.checkpoints.promotions import (
    check_usable,
    lock_project,
    next_priority,
    promote,
    read_state,
    roll_back,
    served,
    served_before,
    usable_in,
)
from training.checkpoints.retirement import check_resumable, delete_files, restore, retire

__all__ = [
    "check_again",
    "check_may_import",
    "check_resumable",
    "check_usable",
    "delete_files",
    "import_checkpoint",
    "lock_project",
    "next_priority",
    "promote",
    "read_state",
    "restore",
    "retire",
    "roll_back",
    "served",
    "served_before",
    "settle_check",
    "usable_in",
]
