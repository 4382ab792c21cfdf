"""Format `openai-dpo`: pairs as OpenAI's preference fine-tuning reads them."""

from collections.abc import Iterator

from django.utils.translation import gettext_lazy as _

from feedback.export.formats.registry import PAIRS, export_format
from feedback.export.pairs import messages_of, number_of_pairs, pairs_or_retraction
from feedback.export.ranking_record import Row
from feedback.export.reader import Reader
from feedback.export.schema import MESSAGES
from feedback.models import Prompt

READING = """# the file is uploaded as it is: POST /v1/files with purpose "fine-tune"
from openai import OpenAI

file = OpenAI().files.create(file=open("{file}", "rb"), purpose="fine-tune")"""


@export_format(
    "openai-dpo",
    line=_('a pair `{"input": {"messages": [...]}, "preferred_output": [...], "non_preferred_output": [...]}`'),
    default_split=Prompt.Split.TRAIN,
    reading=READING,
    lines=number_of_pairs,
    ties=PAIRS,
    schema={
        "input": {"messages": MESSAGES, "tools": ["text"], "parallel_tool_calls": "boolean"},
        "preferred_output": MESSAGES,
        "non_preferred_output": MESSAGES,
    },
    has_cursor=False,
)
def openai_dpo(rows: Iterator[Row], reader: Reader) -> Iterator[Row]:
    """Write each pair with OpenAI's fields only, since others are refused there."""
    for pair in pairs_or_retraction(rows, reader):
        if isinstance(pair, dict):
            continue  # only readers by cursor get one, and there are none
        ranking, better, worse = pair
        yield {
            "input": {"messages": ranking["messages"], "tools": [], "parallel_tool_calls": True},
            "preferred_output": messages_of(ranking, better),
            "non_preferred_output": messages_of(ranking, worse),
        }
