"""Format `label-studio`: tasks with an annotation of the tag `Ranker` with buckets."""

from collections.abc import Iterator

from django.utils.translation import gettext_lazy as _

from feedback.export.formats.registry import export_format
from feedback.export.pairs import completion_text, prompt_text
from feedback.export.ranking_record import Row
from feedback.export.reader import Reader

READING = """import json

rows = [json.loads(line) for line in open("{file}", encoding="utf-8")]
json.dump(rows, open("tasks.json", "w", encoding="utf-8"))  # Label Studio imports a JSON list"""


@export_format(
    "label-studio",
    line=_("a task with the completions as `items` and one person's ranking in buckets, one for each rank"),
    reading=READING,
    has_cursor=False,
)
def label_studio(rows: Iterator[Row], reader: Reader) -> Iterator[Row]:
    """Write each ranking as a task. Buckets `rank-1`, `rank-2`, … hold the ids of the items; a tie shares one.

    The annotator is in `data`: Label Studio refuses annotations of people who have no account there.
    """
    for ranking in rows:
        if "retracted" in ranking:
            continue  # only readers by cursor get one, and there are none
        places = range(len(ranking["ranks"]))
        items = [
            {"id": str(place + 1), "title": f"Completion {place + 1}", "body": completion_text(ranking, place)}
            for place in places
        ]
        buckets = {
            f"rank-{rank}": [str(place + 1) for place in places if ranking["ranks"][place] == rank]
            for rank in sorted(set(ranking["ranks"]))
        }
        if len(buckets) == 1:  # a single list would be an order
            buckets["rank-2"] = []
        result = {"from_name": "ranking", "to_name": "items", "type": "ranker", "value": {"ranker": buckets}}
        yield {
            "data": {
                "prompt": prompt_text(ranking["messages"]),
                "items": items,
                "sources": ranking["sources"],
                "annotator": ranking["annotator"],
                "prompt_id": ranking["prompt_id"],
                "split": ranking["split"],
            },
            "annotations": [
                {
                    "unique_id": str(ranking["ranking_id"]),
                    "was_cancelled": False,
                    "ground_truth": False,
                    "created_at": ranking["created_at"],
                    "lead_time": ranking["seconds"],
                    "result": [result],
                }
            ],
        }
