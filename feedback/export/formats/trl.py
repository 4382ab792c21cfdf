"""Format `trl`: pairs in TRL's conversational preference format, for its reward and DPO trainers."""

from collections.abc import Iterator, Sequence
from itertools import combinations

from django.utils.translation import gettext_lazy as _

from feedback.dialogues import Turns
from feedback.export.formats.registry import LOAD_DATASET, export_format
from feedback.export.ranking_record import IDENTITY, Row, retraction
from feedback.models import Prompt

READING = f"""{LOAD_DATASET}

from trl import DPOConfig, DPOTrainer  # or RewardConfig, RewardTrainer

DPOTrainer(model="MODEL", args=DPOConfig(output_dir="dpo"), train_dataset=rows).train()"""


@export_format(
    "trl",
    line=_('a pair `{"prompt": [...], "chosen": [...], "rejected": [...]}`, as TRL\'s reward and DPO trainers read it'),
    default_split=Prompt.Split.TRAIN,
    reading=READING,
    lines=lambda ranks: sum(1 for _pair in _pairs(ranks)),
)
def trl(rows: Iterator[Row], after: int) -> Iterator[Row]:
    """Turn each ranking into its pairs, the best completions first.

    Each row: `prompt` (messages), `chosen` and `rejected` (messages: one of the assistant, or a dialogue), for filters
    `ranking_id, prompt_id, external_id ("" if there is none), split, annotator, comparison_id, revision, created_at,
    chosen_source, rejected_source, strength and trial (0 if there is none)`, and `weight`. No column is null. A ranking
    of K completions gives up to K·(K − 1)/2 pairs; a tie gives none, since the format cannot express it.
    """
    for ranking in rows:
        if "retracted" in ranking:
            yield ranking
            continue
        pairs = list(_pairs(ranking["ranks"]))
        # The reader may have pairs of an earlier revision, which no pair of this one would replace.
        if not pairs and after and ranking["revision"] > 1:
            yield retraction(ranking, "tied")
        for better, worse in pairs:
            yield _preference(ranking, better, worse)


def _pairs(ranks: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Return the indices (better, worse) of each pair that is not tied, the best first."""
    order = sorted(range(len(ranks)), key=ranks.__getitem__)
    return ((better, worse) for better, worse in combinations(order, 2) if ranks[better] < ranks[worse])


def _messages(ranking: Row, place: int) -> Turns:
    """Return a completion as messages."""
    turns = ranking["turns"][place] if "turns" in ranking else None
    return turns or [{"role": "assistant", "content": ranking["completions"][place]}]


def _preference(ranking: Row, better: int, worse: int) -> Row:
    return {
        "prompt": ranking["messages"],
        "chosen": _messages(ranking, better),
        "rejected": _messages(ranking, worse),
        **{name: ranking[name] for name in IDENTITY if name != "sequence"},
        "external_id": ranking["external_id"] or "",
        "chosen_source": ranking["sources"][better],
        "rejected_source": ranking["sources"][worse],
        "strength": ranking["strength"] or 0,
        "trial": ranking["trial"] or 0,
        "created_at": ranking["created_at"],
        "weight": ranking["weight"],
    }
