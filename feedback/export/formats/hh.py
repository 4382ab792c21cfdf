"""Format `hh`: pairs of transcripts, as Anthropic's HH-RLHF has them."""

from collections.abc import Iterator

from django.utils.translation import gettext_lazy as _

from feedback.export.formats.registry import PAIRS, export_format
from feedback.export.pairs import columns_of, messages_of, number_of_pairs, pairs_or_retraction, transcript
from feedback.export.ranking_record import Row
from feedback.export.reader import Reader
from feedback.export.schema import OF_PAIR
from feedback.models import Prompt


@export_format(
    "hh",
    line=_('a pair `{"chosen": "...", "rejected": "..."}` of transcripts with `Human:` and `Assistant:`'),
    default_split=Prompt.Split.TRAIN,
    lines=number_of_pairs,
    ties=PAIRS,
    schema={"chosen": "text", "rejected": "text", **OF_PAIR},
)
def hh(rows: Iterator[Row], reader: Reader) -> Iterator[Row]:
    """Write each pair as two transcripts; messages of the system and of tools have `System:` and `Tool:`."""
    for pair in pairs_or_retraction(rows, reader):
        if isinstance(pair, dict):
            yield pair
            continue
        ranking, better, worse = pair
        yield {
            "chosen": transcript(ranking["messages"] + messages_of(ranking, better)),
            "rejected": transcript(ranking["messages"] + messages_of(ranking, worse)),
            **columns_of(*pair),
        }
