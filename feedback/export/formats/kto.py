"""Format `kto`: single completions with a label, as TRL's KTO trainer reads them."""

from collections.abc import Iterator, Sequence

from django.utils.translation import gettext_lazy as _

from feedback.export.formats.registry import LOAD_DATASET, OMITTED, export_format
from feedback.export.pairs import messages_of
from feedback.export.ranking_record import IDENTITY, Row, retraction
from feedback.export.reader import Reader
from feedback.export.schema import IDENTITY as IDENTITY_TYPES
from feedback.export.schema import MESSAGES
from feedback.models import Prompt

READING = f"""{LOAD_DATASET}

from trl import KTOConfig, KTOTrainer

KTOTrainer(model="MODEL", args=KTOConfig(output_dir="kto"), train_dataset=rows).train()"""


def labelled(ranks: Sequence[int]) -> list[tuple[int, bool]]:
    """Return (index, label): true for completions of the best rank, false for the worst; none if all are tied.

    Ethayarajh et al. 2024, "KTO", §4: the preferred completion of a pair is desirable, the other is not. Those between
    are neither.
    """
    best, worst = min(ranks), max(ranks)
    return [(place, rank == best) for place, rank in enumerate(ranks) if best < worst and rank in (best, worst)]


@export_format(
    "kto",
    line=_('a completion `{"prompt": [...], "completion": [...], "label": true}`; false for the worst'),
    default_split=Prompt.Split.TRAIN,
    reading=READING,
    lines=lambda ranks: len(labelled(ranks)),
    ties=OMITTED,
    schema={
        "prompt": MESSAGES,
        "completion": MESSAGES,
        "label": "boolean",
        **IDENTITY_TYPES,
        "external_id": "text",
        "source": "text",
        "created_at": "text",
        "weight": "number",
    },
)
def kto(rows: Iterator[Row], reader: Reader) -> Iterator[Row]:
    """Label the completions of the best and the worst rank of each ranking, with columns for filters as in `trl`."""
    for ranking in rows:
        if "retracted" in ranking:
            yield ranking
            continue
        labels = labelled(ranking["ranks"])
        if not labels and reader.after and ranking["revision"] > 1:
            yield retraction(ranking, "tied")
        for place, label in labels:
            yield {
                "prompt": ranking["messages"],
                "completion": messages_of(ranking, place),
                "label": label,
                **{name: ranking[name] for name in IDENTITY if name != "sequence"},
                "external_id": ranking["external_id"] or "",
                "source": ranking["sources"][place],
                "created_at": ranking["created_at"],
                "weight": ranking["weight"],
            }
