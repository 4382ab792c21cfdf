"""Format `argilla`: records with a ranking question, as Argilla's SDK writes and reads them."""

from collections.abc import Iterator, Sequence

from django.utils.translation import gettext_lazy as _

from feedback.export.formats.registry import OMITTED, export_format
from feedback.export.pairs import completion_text, prompt_text
from feedback.export.ranking_record import Row
from feedback.export.reader import Reader

READING = """import json

import argilla as rg

rows = [json.loads(line) for line in open("{file}", encoding="utf-8")]
records = [rg.Record.from_dict(row) for row in rows]"""


@export_format(
    "argilla",
    line=_("a record with the fields `prompt`, `response-1`, …, and one person's ranking of them"),
    reading=READING,
    lines=lambda ranks: int(not _has_ties(ranks)),
    has_cursor=False,
    ties=OMITTED,
)
def argilla(rows: Iterator[Row], reader: Reader) -> Iterator[Row]:
    """Write each ranking without ties as a record. The question `preference` lists the responses, the best first.

    The SDK's lists cannot express a tie: such rankings are left out.
    """
    for ranking in rows:
        if "retracted" in ranking or _has_ties(ranking["ranks"]):
            continue  # only readers by cursor get retractions, and there are none
        names = [f"response-{place + 1}" for place in range(len(ranking["ranks"]))]
        order = sorted(range(len(names)), key=ranking["ranks"].__getitem__)
        texts = {name: completion_text(ranking, place) for place, name in enumerate(names)}
        yield {
            "id": str(ranking["ranking_id"]),
            "fields": {"prompt": prompt_text(ranking["messages"]), **texts},
            "metadata": {
                "prompt_id": str(ranking["prompt_id"]),
                "split": ranking["split"],
                "sources": ", ".join(ranking["sources"]),
            },
            "suggestions": {},
            "responses": {
                "preference": [{"value": [names[place] for place in order], "user_id": ranking["annotator"]}]
            },
            "vectors": {},
            "status": "completed",
        }


def _has_ties(ranks: Sequence[int]) -> bool:
    return len(set(ranks)) < len(ranks)
