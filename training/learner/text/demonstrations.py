"""Demonstrations: rows of demonstrations.jsonl, and their tokens with a loss weight each."""

from typing import Any, NamedTuple

from training.learner.runtime.config import Settings
from training.learner.runtime.jobdir import BadInput, JobDirectory
from training.learner.text.messages import (
    SPLITS,
    Messages,
    check_messages,
    encode_completion,
    naming_row,
    render,
    truncate_prompt,
)


class Demonstration(NamedTuple):
    """A row of demonstrations.jsonl."""

    messages: Messages
    completion: str
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
        completion, weight = row.get("completion"), row.get("weight", 1.0)
        if not isinstance(completion, str):
            raise BadInput("completion must be a string")
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < float("inf"):
            raise BadInput(f"weight must be a number above 0, not {weight!r}")
        split = row.get("split", "")
        if split not in ("", *SPLITS):
            raise BadInput(f"split must be train or held_out, not {split!r}")
    return Demonstration(messages, completion, float(weight), number, split)


def encode_demonstration(
    tokenizer: Any, row: Demonstration, settings: Settings, prompt_loss_weight: float = 0.0
) -> Example:
    """Return the demonstration as tokens. Raises BadInput if its prompt has none."""
    with naming_row("demonstrations.jsonl", row.number, {}):
        whole_prompt = render(tokenizer, row.messages)
        prompt = truncate_prompt(whole_prompt, settings.max_prompt_tokens, settings.overlong_prompts)
        if not prompt:
            raise BadInput("the prompt has no tokens")
    whole = encode_completion(tokenizer, row.completion)
    completion = whole[: settings.max_completion_tokens]
    weights = [prompt_loss_weight * row.weight] * len(prompt) + [row.weight] * len(completion)
    cut = (len(prompt) < len(whole_prompt), len(completion) < len(whole))
    return Example(prompt + completion, weights[1:], *cut)
