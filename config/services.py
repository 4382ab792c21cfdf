"""The processes that make up a running Accord, and the database under them."""

import os
from pathlib import Path

from config import postgres

BASE_DIR = Path(__file__).resolve().parent.parent


def data_dir() -> Path:
    return Path(os.environ.get("ACCORD_DATA", "").strip() or BASE_DIR / "var").resolve()


def prepare_database(command: str) -> None:
    """Before Django reads its settings: the embedded cluster, unless DATABASE_URL names a server."""
    postgres.use(data_dir())
