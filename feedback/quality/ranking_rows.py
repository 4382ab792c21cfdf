"""Rankings as input to statistics: one record for agreement, reliability and the quality checks."""

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import starmap
from typing import NamedTuple

from django.db.models import QuerySet

from feedback.models import Lease, Ranking


class RankingRow(NamedTuple):
    """The columns of a ranking that statistics read. An annotator has at most one row per comparison."""

    comparison_id: int
    annotator_id: int
    ranks: Sequence[int]  # by position; 1 is best, equal ranks are ties
    gold_ranks: Sequence[int] | None = None  # the right ranking of a gold comparison
    reason: str = Lease.Reason.SAMPLED
    created_at: datetime = datetime.min.replace(tzinfo=UTC)
    display_order: Sequence[int] = ()  # positions in the order in which this annotator saw them
    seconds: float = 0.0  # from the first sight to the submit


COLUMNS = (
    "comparison_id",
    "annotator_id",
    "ranks",
    "comparison__gold_ranks",
    "reason",
    "created_at",
    "display_order",
    "seconds",
)
# The columns without those that only the quality checks use: a quarter of the time to read a ranking.
AGREEMENT_COLUMNS = COLUMNS[:6]


def read_rankings(rankings: QuerySet[Ranking], columns: Sequence[str] = COLUMNS) -> list[RankingRow]:
    """Return the rankings in the order of the query set. Runs one query. Columns left out have their defaults."""
    return list(starmap(RankingRow, rankings.values_list(*columns).iterator(chunk_size=5000)))
