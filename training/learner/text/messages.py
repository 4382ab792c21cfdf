"""Messages to token ids, and rows of tokens to batches. No torch here; a tokenizer is transformers' own."""

import contextlib
import random
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from jinja2 import TemplateError

from training.learner.runtime.config import Settings
from training.learner.runtime.jobdir import BadInput
from training.learner.text.control_tokens import (
    control_tokens,
    encode_rendered,
    encode_text,
    is_no_text,
    with_stand_ins,
)

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


@contextlib.contextmanager
def naming(file: str, number: int, row: dict[str, Any]) -> Iterator[None]:
    """Name the row of a job's file, and its prompt if it says which, in whatever BadInput is raised meanwhile."""
    try:
        yield
    except BadInput as error:
        prompt = f" (prompt_id {row['prompt_id']!r:.40})" if "prompt_id" in row else ""
        raise BadInput(f"{file}, row {number}{prompt}: {error}") from error


def check_messages(messages: Any) -> Messages:
    """Raises BadInput unless this is a non-empty list of {role, content} of text."""
    if not isinstance(messages, list) or not messages:
        raise BadInput("messages must be a list of at least one message")
    for message in messages:
        if not isinstance(message, dict) or not all(isinstance(message.get(key), str) for key in ("role", "content")):
            raise BadInput("a message must have a role and a content, both text")
    return messages


def render(tokenizer: Any, messages: Messages) -> list[int]:
    """Return all tokens of a prompt, up to where the completion begins, by the chat template or the plain one.

    What messages say is data: it never becomes a control token. Raises BadInput for messages that the template refuses:
    some know no system, or want turns to alternate.
    """
    roles = [message["role"] for message in messages]
    if odd := [role for role in roles if not role.replace("_", "").replace("-", "").isalnum()]:
        raise BadInput(f"a message's role must be a word, for example user, not {odd[0]!r:.80}")
    contents, stand_ins = with_stand_ins(tokenizer, [message["content"] for message in messages])
    turns = [{**message, "content": content} for message, content in zip(messages, contents, strict=True)]
    template = {} if tokenizer.chat_template else {"chat_template": PLAIN_TEMPLATE}
    try:
        text = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False, **template)
    except TemplateError as error:
        said = f"the tokenizer's chat template refuses messages by {', '.join(roles)}: {error}"
        raise BadInput(said) from error
    tokens = encode_rendered(tokenizer, text, stand_ins, add_special_tokens=bool(template))
    return tokens[:-1] if template and ends_itself(tokenizer) else tokens


def ends_itself(tokenizer: Any) -> bool:
    """Whether the tokenizer puts an end token after every text by itself, which must not stand between turns."""
    return bool(tokenizer("a").input_ids[-1:] == [tokenizer.eos_token_id])


def encode_prompt(tokenizer: Any, messages: Messages, max_prompt_tokens: int, overlong: str = "truncate") -> list[int]:
    """A prompt's tokens, at most max_prompt_tokens: an over-long one loses its beginning, or raises BadInput."""
    return cut_prompt(render(tokenizer, messages), max_prompt_tokens, overlong)


def cut_prompt(tokens: list[int], max_prompt_tokens: int, overlong: str = "truncate") -> list[int]:
    """A rendered prompt's last max_prompt_tokens tokens. Raises BadInput for an over-long one that is to be refused."""
    if len(tokens) > max_prompt_tokens and overlong == "refuse":
        raise BadInput(f"a prompt has {len(tokens)} tokens, more than max_prompt_tokens ({max_prompt_tokens})")
    return tokens[-max_prompt_tokens:]


def encode_completion(tokenizer: Any, text: str, max_completion_tokens: int | None = None) -> list[int]:
    """Return a completion's tokens and the end of turn; cut to max_completion_tokens if given."""
    return [*encode_text(tokenizer, text), control_tokens(tokenizer).end_of_turn][:max_completion_tokens]


def decode_completion(tokenizer: Any, tokens: Sequence[int]) -> str:
    """Return the text that people read of a completion, as written: all but the control token that it stopped at.

    Without NUL characters, which nobody sees and no database keeps.
    """
    text = list(tokens[:-1]) if tokens and is_no_text(tokenizer, tokens[-1]) else list(tokens)
    decoded = str(tokenizer.decode(text, skip_special_tokens=False, clean_up_tokenization_spaces=False))
    return decoded.replace("\0", "")


def read_prompts(tokenizer: Any, rows: Iterable[dict[str, Any]], settings: Settings) -> list[Prompt]:
    """prompts.jsonl to tokens; how many were truncated is in the result. Raises BadInput if there is none."""
    prompts = []
    for number, row in enumerate(rows, 1):
        with naming("prompts.jsonl", number, row):
            messages = check_messages(row.get("messages"))
            if row.get("split", "train") not in SPLITS:
                raise BadInput(f"split must be train or held_out, not {row['split']!r}")
            whole = render(tokenizer, messages)
            tokens = cut_prompt(whole, settings.max_prompt_tokens, settings.overlong_prompts)
            if not tokens:
                raise BadInput("the prompt has no tokens")
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
