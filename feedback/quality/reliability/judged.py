"""What is known of a ranking where reliability is estimated."""

from collections.abc import Sequence
from typing import NamedTuple


class Judged(NamedTuple):
    """A ranking, as far as reliability goes."""

    comparison_id: int
    annotator_id: int
    ranks: Sequence[int]
    gold_ranks: Sequence[int] | None  # where the right ranking is known
