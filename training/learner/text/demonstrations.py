"""Demonstrations: rows of demonstrations.jsonl, and their tokens with a loss weight each."""

from typing import Any, NamedTuple

from training.learner.runtime.config import Settings
from training.learner.runtime.jobdir import BadInput, JobDirectory
from training.learner.text.messages import (
    SPLITS,
    Messages,
    check_messages,
    encode_turns,
    naming_row,
    render,
    tokens_left,
    truncate_prompt,
    turns_of,
)


class Demonstration(NamedTuple):
    """A row of demonstrations.jsonl."""

    messages: Messages
    turns: Messages  # of the completion: one, or those of a dialogue
    weight: float
    number: int = 0  # of the row in the file
    split: str = ""  # train or held_out; "": chosen by held_out_fraction


class Example(NamedTuple):
    """A demonstration as tokens, with the loss weight of each token except the first."""

    tokens: list[int]
    weights: list[float]  # one fewer than tokens: weights[i] is the weight of tokens[i + 1]
    truncated_prompt: bool = False
    truncated_completion: bool = False


def read_demonstrations(job: JobDirectory) -> list[Demonstration]:
    """Return the demonstrations. Raises BadInput for a row that cannot be used, or if there is none."""
    rows = [as_demonstration(row, number) for number, row in enumerate(job.rows("demonstrations.jsonl"), 1)]
    if not rows:
        raise BadInput("demonstrations.jsonl has no rows: add demonstrations")
    return rows


def as_demonstration(row: dict[str, Any], number: int) -> Demonstration:
    with naming_row("demonstrations.jsonl", number, row):
        messages = check_messages(row.get("messages"))
        turns, weight = turns_of(row), row.get("weight", 1.0)
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < float("inf"):
            raise BadInput(f"weight must be a number above 0, not {weight!r}")
        split = row.get("split", "")
        if split not in ("", *SPLITS):
            raise BadInput(f"split must be train or held_out, not {split!r}")
    return Demonstration(messages, turns, float(weight), number, split)


def encode_demonstration(
    tokenizer: Any,
    row: Demonstration,
    settings: Settings,
    prompt_loss_weight: float = 0.0,
    positions: int | None = None,
) -> Example:
    """Return the demonstration as tokens. Raises BadInput if its prompt has none.

    Of a dialogue, the user's turns have the weight of the prompt. positions: of the policy; a dialogue that needs more
    is cut after the last turn that fits.
    """
    with naming_row("demonstrations.jsonl", row.number, {}):
        whole_prompt = render(tokenizer, row.messages)
        prompt = truncate_prompt(whole_prompt, settings.max_prompt_tokens, settings.overlong_prompts)
        if not prompt:
            raise BadInput("the prompt has no tokens")
        limits = settings.max_completion_tokens, tokens_left(positions, prompt)
        completion, spans, is_cut_off = encode_turns(tokenizer, row.messages, row.turns, *limits)
    weights = [prompt_loss_weight * row.weight] * (len(prompt) + len(completion))
    for start, end in spans:
        weights[len(prompt) + start : len(prompt) + end] = [row.weight] * (end - start)
    return Example(prompt + completion, weights[1:], len(prompt) < len(whole_prompt), is_cut_off)
