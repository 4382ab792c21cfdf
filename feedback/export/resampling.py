"""Rankings repeated in proportion to their weights, for trainers that ignore a weight."""

import hashlib
from collections.abc import Iterable, Iterator
from fractions import Fraction

from feedback.export.ranking_record import Row

COPIES = 4  # of a ranking of weight 1: the fewer, the more one of a small weight is left to chance


def copies_of(ranking_id: int, weight: float) -> int:
    """Return how often a ranking is written: 4 times its weight on average, rounded up or down by its id.

    The hash of the id is uniform, so the expected number is exact, and the same ranking has the same number in every
    export.
    """
    digest = hashlib.sha256(f"resample {ranking_id}".encode()).digest()
    uniform = Fraction(int.from_bytes(digest[:8], "big"), 2**64)  # in [0, 1)
    return int(COPIES * Fraction(weight) + uniform)


def resampled(rows: Iterable[Row]) -> Iterator[Row]:
    """Yield each ranking as often as `copies_of` says, with the weight 1."""
    for row in rows:
        for _copy in range(copies_of(row["ranking_id"], row["weight"])):
            yield row | {"weight": 1.0}
