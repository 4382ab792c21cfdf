"""Format `rankings`: whole rankings, as `ranking_record.rankings` documents them."""

from collections.abc import Iterator

from django.utils.translation import gettext_lazy as _

from feedback.export.formats.registry import export_format
from feedback.export.ranking_record import Row
from feedback.export.reader import Reader

READING = """import json

with open("{file}", encoding="utf-8") as file:
    rows = [json.loads(line) for line in file]"""


@export_format(
    "rankings",
    line=_("a ranking with ties, `reliability` and `weight`, flags, comment and sources"),
    reading=READING,  # values that are null or empty in the first rows have no type, which `load_dataset` needs
)
def rankings(rows: Iterator[Row], reader: Reader) -> Iterator[Row]:
    return rows
