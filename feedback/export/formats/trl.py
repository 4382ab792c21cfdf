"""Formats `trl`, `trl-implicit` and `trl-standard`: pairs as TRL's reward and DPO trainers read them.

The three forms are those of TRL's documentation ("Dataset formats and types"): conversational with an explicit prompt,
conversational with the prompt inside both answers, and text. All have the same further columns.
"""

from collections.abc import Iterator

from django.utils.translation import gettext_lazy as _

from feedback.export.formats.registry import LOAD_DATASET, PAIRS, export_format
from feedback.export.pairs import (
    columns_of,
    completion_text,
    messages_of,
    number_of_pairs,
    pairs_or_retraction,
    prompt_text,
)
from feedback.export.ranking_record import Row
from feedback.export.reader import Reader
from feedback.export.schema import MESSAGES, OF_PAIR
from feedback.models import Prompt

READING = f"""{LOAD_DATASET}

from trl import DPOConfig, DPOTrainer  # or RewardConfig, RewardTrainer

DPOTrainer(model="MODEL", args=DPOConfig(output_dir="dpo"), train_dataset=rows).train()"""


@export_format(
    "trl",
    line=_('a pair `{"prompt": [...], "chosen": [...], "rejected": [...]}`, as TRL\'s reward and DPO trainers read it'),
    default_split=Prompt.Split.TRAIN,
    reading=READING,
    lines=number_of_pairs,
    ties=PAIRS,
    schema={"prompt": MESSAGES, "chosen": MESSAGES, "rejected": MESSAGES, **OF_PAIR},
)
def trl(rows: Iterator[Row], reader: Reader) -> Iterator[Row]:
    """Turn each ranking into its pairs, the best completions first.

    Each row: `prompt` (messages), `chosen` and `rejected` (messages: one of the assistant, or a dialogue), for filters
    `ranking_id, prompt_id, external_id ("" if there is none), split, annotator, comparison_id, revision, created_at,
    chosen_source, rejected_source, strength and trial (0 if there is none)`, and `weight`. No column is null. A ranking
    of K completions gives up to K·(K − 1)/2 pairs; a tie gives none, since the format cannot express it.
    """
    for pair in pairs_or_retraction(rows, reader):
        if isinstance(pair, dict):
            yield pair
            continue
        ranking, better, worse = pair
        chosen, rejected = messages_of(ranking, better), messages_of(ranking, worse)
        yield {"prompt": ranking["messages"], "chosen": chosen, "rejected": rejected, **columns_of(*pair)}


@export_format(
    "trl-implicit",
    line=_('a pair `{"chosen": [...], "rejected": [...]}` whose messages begin with the prompt\'s'),
    default_split=Prompt.Split.TRAIN,
    reading=READING,
    lines=number_of_pairs,
    ties=PAIRS,
    schema={"chosen": MESSAGES, "rejected": MESSAGES, **OF_PAIR},
)
def trl_implicit(rows: Iterator[Row], reader: Reader) -> Iterator[Row]:
    """Write the pairs of `trl` without a column for the prompt."""
    for row in trl(rows, reader):
        if "retracted" not in row:
            prompt = row.pop("prompt")
            row |= {name: prompt + row[name] for name in ("chosen", "rejected")}
        yield row


@export_format(
    "trl-standard",
    line=_('a pair `{"prompt": "...", "chosen": "...", "rejected": "..."}` of texts'),
    default_split=Prompt.Split.TRAIN,
    reading=READING,
    lines=number_of_pairs,
    ties=PAIRS,
    schema={"prompt": "text", "chosen": "text", "rejected": "text", **OF_PAIR},
)
def trl_standard(rows: Iterator[Row], reader: Reader) -> Iterator[Row]:
    """Write the pairs of `trl` as texts. A prompt of several messages is a transcript, as in the format `hh`."""
    for pair in pairs_or_retraction(rows, reader):
        if isinstance(pair, dict):
            yield pair
            continue
        ranking, better, worse = pair
        yield {
            "prompt": prompt_text(ranking["messages"]),
            "chosen": completion_text(ranking, better),
            "rejected": completion_text(ranking, worse),
            **columns_of(*pair),
        }
