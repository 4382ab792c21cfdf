"""prompts.jsonl and guard_texts.jsonl of the guards."""

import hashlib
from collections.abc import Iterator
from typing import Any

from feedback.models import Prompt
from training.models import GuardText, Round
from training.rounds.inputs import rows
from training.rounds.inputs.prompts import prompt_rows
from training.rounds.recipes.description import GUARD_PROMPTS, GUARD_TEXTS, Job


@rows(GUARD_PROMPTS)
def guard_prompts(round_: Round, job: Job, counts: dict[str, int]) -> Iterator[dict[str, Any]]:
    """Yield at most `guard_prompts` held-out prompts, the same in every round until some are added.

    Those with the metadata {"guard": true} come first, then those with references, which text metrics need, then the
    others, each in the order of a hash: a new prompt moves no other one, except out of the first ones.
    """
    held_out = Prompt.objects.filter(
        project=round_.project, split=Prompt.Split.HELD_OUT, created_at__lte=round_.created_at
    )
    chosen = sorted(held_out.values_list("pk", "metadata", "references"), key=_order)
    yield from prompt_rows([pk for pk, *_ in chosen[: round_.settings["round"]["guard_prompts"]]])


def _order(prompt: tuple[int, dict[str, Any], list[str]]) -> tuple[bool, bool, bytes]:
    pk, metadata, references = prompt
    return metadata.get("guard") is not True, not references, hashlib.sha256(f"guards/{pk}".encode()).digest()


@rows(GUARD_TEXTS)
def guard_texts(round_: Round, job: Job, counts: dict[str, int]) -> Iterator[dict[str, Any]]:
    """Yield the project's guard texts of the start of the round."""
    texts = GuardText.objects.filter(project=round_.project, created_at__lte=round_.created_at).order_by("pk")
    for text in texts.values_list("text", flat=True).iterator():
        yield {"text": text}
