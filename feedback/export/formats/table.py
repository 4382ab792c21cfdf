"""Format `table`: whole rankings in columns of fixed types, as Arrow and `datasets.load_dataset` need them."""

import json
from collections.abc import Iterator
from typing import Any

from django.utils.translation import gettext_lazy as _

from feedback.export.formats.registry import export_format
from feedback.export.ranking_record import IDENTITY, Row
from feedback.export.reader import Reader
from feedback.export.schema import IDENTITY as IDENTITY_TYPES
from feedback.export.schema import MESSAGES
from feedback.models.reliability import PRIOR

JSON_COLUMNS = ("flags", "ratings", "spans", "references", "metadata")  # their form differs from row to row
# Values of a retracted row, which has no content.
EMPTY: dict[str, Any] = {
    **{name: [] for name in ("messages", "completions", "completion_ids", "sources", "ranks", "display_order")},
    **{name: [] for name in ("flags", "spans", "references", "sampling")},
    **{name: {} for name in ("ratings", "metadata")},
    **dict.fromkeys(("external_id", "reason", "comment", "created_at", "retracted"), ""),
    "strength": 0,
    "trial": 0,
    "seconds": 0.0,
    "weight": 0.0,
    "reliability": PRIOR,
}
NULL_VALUES = {"strength": 0, "trial": 0, "external_id": "", "reliability": PRIOR}


@export_format(
    "table",
    line=_("a ranking in columns of fixed types, with JSON in text columns such as `metadata_json`"),
    schema={
        "ranking_id": "integer",
        "sequence": "integer",
        **{name: kind for name, kind in IDENTITY_TYPES.items() if name != "ranking_id"},
        **{f"{name}_json": "text" for name in JSON_COLUMNS},
        "sampling_json": ["text"],
        "turns_json": ["text"],
        "messages": MESSAGES,
        "completions": ["text"],
        "completion_ids": ["integer"],
        "sources": ["text"],
        "ranks": ["integer"],
        "display_order": ["integer"],
        **dict.fromkeys(("external_id", "reason", "comment", "created_at"), "text"),
        **dict.fromkeys(("strength", "trial"), "integer"),
        **dict.fromkeys(("seconds", "weight", "reliability"), "number"),
    },
)
def table(rows: Iterator[Row], reader: Reader) -> Iterator[Row]:
    """Give each column the type that it has in the first row.

    JSON in a text: `flags_json, ratings_json, spans_json, references_json, metadata_json`, and each text of
    `sampling_json` and `turns_json` (aligned with completions; `[]`: the completion is one text). No column is null:
    `strength` and `trial` are 0 and `external_id` is "" where there is none, `reliability` is the prior's where it is
    not estimated, `retracted` is "" for rankings that count.
    """
    for row in rows:
        values = EMPTY | row
        columns = {name: values.pop(name) for name in (*IDENTITY, "retracted")}
        columns |= {f"{name}_json": json.dumps(values.pop(name), ensure_ascii=False) for name in JSON_COLUMNS}
        columns["sampling_json"] = [json.dumps(sampling, ensure_ascii=False) for sampling in values.pop("sampling")]
        turns = values.pop("turns", None) or [None] * len(values["completions"])
        columns["turns_json"] = [json.dumps(one or [], ensure_ascii=False) for one in turns]
        columns |= {name: NULL_VALUES.get(name) if value is None else value for name, value in values.items()}
        yield columns
