"""Format `rankings`: whole rankings, as `ranking_record.rankings` documents them."""

from collections.abc import Iterator

from feedback.export.formats.registry import export_format
from feedback.export.ranking_record import Row


@export_format("rankings", line="a ranking with ties, `reliability` and `weight`, flags, comment and sources")
def rankings(rows: Iterator[Row], after: int) -> Iterator[Row]:
    return rows
