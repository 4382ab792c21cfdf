"""Format `argilla`: records with a ranking question, as Argilla's SDK writes and reads them."""

from collections.abc import Iterator

from django.utils.translation import gettext_lazy as _

from feedback.export.formats.registry import export_format
from feedback.export.pairs import completion_text, prompt_text
from feedback.export.ranking_record import Row

READING = """import json

import argilla as rg

rows = [json.loads(line) for line in open("{file}", encoding="utf-8")]
records = [rg.Record.from_dict(row) for row in rows]"""


@export_format(
    "argilla",
    line=_("a record with the fields `prompt`, `response-1`, …, and one person's ranking of them"),
    reading=READING,
    has_cursor=False,
)
def argilla(rows: Iterator[Row], after: int) -> Iterator[Row]:
    """Write each ranking as a record. The question `preference` lists the responses, the best first.

    A list cannot express a tie: the metadata `ranks` has the ranks of the responses in their order, as in "1,1,2".
    """
    for ranking in rows:
        if "retracted" in ranking:
            continue  # only readers by cursor get one, and there are none
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
                "ranks": ",".join(map(str, ranking["ranks"])),
                "weight": ranking["weight"],
            },
            "suggestions": {},
            "responses": {
                "preference": [{"value": [names[place] for place in order], "user_id": ranking["annotator"]}]
            },
            "vectors": {},
            "status": "completed",
        }
