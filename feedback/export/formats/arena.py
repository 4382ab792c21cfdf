"""Format `arena`: battles of two sources, as Chatbot Arena's published files have them."""

from collections.abc import Iterator
from datetime import datetime
from itertools import combinations

from django.utils.translation import gettext_lazy as _

from feedback.export.formats.registry import export_format
from feedback.export.pairs import messages_of
from feedback.export.ranking_record import IDENTITY, Row
from feedback.export.reader import Reader
from feedback.export.schema import IDENTITY as IDENTITY_TYPES
from feedback.export.schema import MESSAGES

ALL_BAD = "all bad"  # the flag


@export_format(
    "arena",
    line=_("a battle of two sources: `model_a` (shown first), `model_b`, `winner`, `judge`, both conversations"),
    lines=lambda ranks: len(ranks) * (len(ranks) - 1) // 2,
    schema={
        "question_id": "text",
        **dict.fromkeys(("model_a", "model_b", "winner", "judge"), "text"),
        **dict.fromkeys(("conversation_a", "conversation_b"), MESSAGES),
        "turn": "integer",
        "anony": "boolean",
        "language": "text",
        "tstamp": "number",
        **{name: kind for name, kind in IDENTITY_TYPES.items() if name != "annotator"},
        "weight": "number",
    },
)
def arena(rows: Iterator[Row], reader: Reader) -> Iterator[Row]:
    """Write every pair of a ranking, ties too unless they are omitted.

    `model_a` is the source whose completion the annotator saw first.
    `winner` is `model_a`, `model_b`, `tie`, or `tie (bothbad)` with the flag "All bad". `tstamp` is in Unix seconds.
    `language` is that of the prompt's metadata, or "unknown". Further columns identify the ranking, as in `trl`.
    """
    for ranking in rows:
        if "retracted" in ranking:
            yield ranking
            continue
        tie = "tie (bothbad)" if ALL_BAD in ranking["flags"] else "tie"
        metadata = ranking["metadata"] if isinstance(ranking["metadata"], dict) else {}
        for first, second in combinations(ranking["display_order"], 2):
            ranks = ranking["ranks"][first], ranking["ranks"][second]
            if ranks[0] == ranks[1] and reader.ties == "omitted":
                continue
            yield {
                "question_id": ranking["external_id"] or str(ranking["prompt_id"]),
                "model_a": ranking["sources"][first],
                "model_b": ranking["sources"][second],
                "winner": tie if ranks[0] == ranks[1] else "model_a" if ranks[0] < ranks[1] else "model_b",
                "judge": ranking["annotator"],
                "conversation_a": ranking["messages"] + messages_of(ranking, first),
                "conversation_b": ranking["messages"] + messages_of(ranking, second),
                "turn": sum(message["role"] == "user" for message in ranking["messages"]),
                "anony": True,
                "language": str(metadata.get("language") or "unknown"),
                "tstamp": datetime.fromisoformat(ranking["created_at"]).timestamp(),
                **{name: ranking[name] for name in IDENTITY if name not in ("sequence", "annotator")},
                "weight": ranking["weight"],
            }
