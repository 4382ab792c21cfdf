"""Messages to token ids, and rows of tokens to batches. No torch here; a tokenizer is transformers' own."""

import random
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from jinja2 import TemplateError

from training.learner.config import Settings
from training.learner.jobdir import BadInput

Messages = list[dict[str, str]]
SPLITS = ("train", "held_out")

# For tokenizers without a chat template (base models): who speaks on a line of its own, what they say below it, so that
# a completion starts a line and needs no leading space.
PLAIN_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] | capitalize }}:\n{{ message['content'] }}\n\n{% endfor %}"
    "{% if add_generation_prompt %}Assistant:\n{% endif %}"
)


class Prompt(NamedTuple):
    """A prompt ready for a model."""

    row: dict[str, Any]  # as it was in prompts.jsonl
    tokens: list[int]
    truncated: bool


def check_messages(messages: Any, where: str) -> Messages:
    """Raises BadInput unless this is a non-empty list of {role, content} of text."""
    if not isinstance(messages, list) or not messages:
        raise BadInput(f"{where}: messages must be a list of at least one message")
    for message in messages:
        if not isinstance(message, dict) or not all(isinstance(message.get(key), str) for key in ("role", "content")):
            raise BadInput(f"{where}: a message must have a role and a content, both text")
    return messages


def render(tokenizer: Any, messages: Messages) -> list[int]:
    """All tokens of a prompt, up to where the completion begins, by the tokenizer's chat template or the plain one.

    Raises BadInput for messages that the template refuses: some know no system, or want turns to alternate.
    """
    if tokenizer.chat_template:
        try:
            return list(tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False))
        except TemplateError as error:
            roles = ", ".join(message["role"] for message in messages)
            raise BadInput(f"the tokenizer's chat template refuses messages by {roles}: {error}") from error
    text = tokenizer.apply_chat_template(
        messages, chat_template=PLAIN_TEMPLATE, add_generation_prompt=True, tokenize=False
    )
    return list(tokenizer(text).input_ids[: None if not ends_itself(tokenizer) else -1])


def ends_itself(tokenizer: Any) -> bool:
    """Whether the tokenizer puts an end token after every text by itself, which must not stand between turns."""
    return tokenizer("a").input_ids[-1:] == [tokenizer.eos_token_id]


def encode_prompt(tokenizer: Any, messages: Messages, max_prompt_tokens: int, overlong: str = "truncate") -> list[int]:
    """A prompt's tokens, at most max_prompt_tokens: an over-long one loses its beginning, or raises BadInput."""
    return cut_prompt(render(tokenizer, messages), max_prompt_tokens, overlong)


def cut_prompt(tokens: list[int], max_prompt_tokens: int, overlong: str = "truncate") -> list[int]:
    """A rendered prompt's last max_prompt_tokens tokens. Raises BadInput for an over-long one that is to be refused."""
    if len(tokens) > max_prompt_tokens and overlong == "refuse":
        raise BadInput(f"a prompt has {len(tokens)} tokens, more than max_prompt_tokens ({max_prompt_tokens})")
    return tokens[-max_prompt_tokens:]


def encode_completion(
    tokenizer: Any, text: str, max_completion_tokens: int | None = None, ended: bool = True
) -> list[int]:
    """A completion's tokens, with the end token unless it was cut off; cut to max_completion_tokens if given."""
    tokens = list(tokenizer(text, add_special_tokens=False).input_ids)
    if ended:
        tokens.append(tokenizer.eos_token_id)
    return tokens[:max_completion_tokens]


def decode_completion(tokenizer: Any, tokens: Sequence[int]) -> str:
    """The text people read: without the end token and the like, without blanks around it."""
    return str(tokenizer.decode(list(tokens), skip_special_tokens=True)).strip()


def read_prompts(tokenizer: Any, rows: Iterable[dict[str, Any]], settings: Settings) -> list[Prompt]:
    """prompts.jsonl to tokens; how many were truncated is in the result. Raises BadInput if there is none."""
    prompts = []
    for number, row in enumerate(rows, 1):
        messages = check_messages(row.get("messages"), f"prompts.jsonl, row {number}")
        if row.get("split", "train") not in SPLITS:
            raise BadInput(f"prompts.jsonl, row {number}: split must be train or held_out, not {row['split']!r}")
        whole = render(tokenizer, messages)
        tokens = cut_prompt(whole, settings.max_prompt_tokens, settings.overlong_prompts)
        if not tokens:
            raise BadInput(f"prompts.jsonl, row {number}: the prompt has no tokens")
        prompts.append(Prompt(row, tokens, len(tokens) < len(whole)))
    if not prompts:
        raise BadInput("prompts.jsonl holds no prompt")
    return prompts


def budget_batches(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Indices of rows in batches of at most `budget` tokens (a longer row goes alone), like lengths together."""
    batches: list[list[int]] = []
    used = 0
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if not batches or used + lengths[index] > budget:
            batches.append([])
            used = 0
        batches[-1].append(index)
        used += lengths[index]
    return batches


def share(items: Sequence[Any], rank: int, count: int) -> Sequence[Any]:
    """The items of one of `count` processes: every count-th, so that sorted items are shared evenly."""
    return items[rank::count]


def shuffled(count: int, seed: int, number: int) -> list[int]:
    """The indices below count in the order of the number-th pass: a function of its arguments, not of a state."""
    order = list(range(count))
    random.Random(f"{seed}/{number}").shuffle(order)
    return order
