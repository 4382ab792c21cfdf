"""The reader of an export, as the formats see it."""

from dataclasses import dataclass

TIES = ("rows", "omitted")


@dataclass(frozen=True)
class Reader:
    """Place of a reader in the record, and its choice about ties."""

    after: int = 0  # cursor; 0: it reads from the beginning
    ties: str | None = None  # one of TIES; None: as the format does by default
