"""Messages to token ids and back, and batches of rows. Without torch; tokenizers are those of transformers."""

import contextlib
import random
import secrets
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, cast

from jinja2 import TemplateError

from training.learner.runtime.config import Settings
from training.learner.runtime.jobdir import BadInput
from training.learner.text.control_tokens import (
    control_tokens,
    encode_rendered,
    encode_text,
    is_not_text,
    with_placeholders,
)

Messages = list[dict[str, str]]
TurnSpan = tuple[int, int]  # a turn of the policy in a completion: its first token, and the one after its last
SPLITS = ("train", "held_out")

# For tokenizers without a chat template (base models): the role on a line of its own and the content below it. So a
# completion starts a line and needs no leading space.
PLAIN_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] | capitalize }}:\n{{ message['content'] }}\n\n{% endfor %}"
    "{% if add_generation_prompt %}Assistant:\n{% endif %}"
)


class Prompt(NamedTuple):
    """A prompt as tokens."""

    row: dict[str, Any]  # as it was in prompts.jsonl
    tokens: list[int]
    truncated: bool


class EncodedTurns(NamedTuple):
    """A completion of one or several turns as tokens."""

    tokens: list[int]
    spans: list[TurnSpan]  # of the assistant's turns; the tokens between them are the user's and the chat template's
    is_cut_off: bool  # whether a part was too long and left out


@contextlib.contextmanager
def naming_row(file: str, number: int, row: dict[str, Any]) -> Iterator[None]:
    """Add file, row number and prompt id to any BadInput that is raised in the block."""
    try:
        yield
    except BadInput as error:
        prompt = f" (prompt_id {row['prompt_id']!r:.40})" if "prompt_id" in row else ""
        raise BadInput(f"{file}, row {number}{prompt}: {error}") from error


def check_messages(messages: Any) -> Messages:
    """Return the messages. Raises BadInput unless they are a non-empty list of {role, content}, both text."""
    if not isinstance(messages, list) or not messages:
        raise BadInput("messages must be a list of at least one message")
    for message in messages:
        if not isinstance(message, dict) or not all(isinstance(message.get(key), str) for key in ("role", "content")):
            raise BadInput("a message must have a role and a content, both text")
    return messages


def render(tokenizer: Any, messages: Messages) -> list[int]:
    """Return all tokens of a prompt up to the completion, by the chat template or PLAIN_TEMPLATE.

    Contents never become control tokens. Raises BadInput for messages that the template refuses: some templates have no
    system role or require alternating turns.
    """
    roles = [message["role"] for message in messages]
    if bad := [role for role in roles if not role.replace("_", "").replace("-", "").isalnum()]:
        raise BadInput(f"a message's role must be a word, for example user, not {bad[0]!r:.80}")
    contents, stand_ins = with_placeholders(tokenizer, [message["content"] for message in messages])
    turns = [{**message, "content": content} for message, content in zip(messages, contents, strict=True)]
    template = {} if tokenizer.chat_template else {"chat_template": PLAIN_TEMPLATE}
    try:
        text = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False, **template)
    except TemplateError as error:
        raise BadInput(f"the chat template refuses messages with roles {', '.join(roles)}: {error}") from error
    tokens = encode_rendered(tokenizer, text, stand_ins, add_special_tokens=bool(template))
    return tokens[:-1] if template and appends_eos(tokenizer) else tokens


def encode_reply(tokenizer: Any, messages: Messages, reply: str) -> list[int]:
    """Return what follows an assistant's turn that answered `messages`: the user's reply, up to the next completion.

    The end-of-turn token of the assistant's turn, which was sampled, is left out. Raises BadInput as `render` does.
    """
    (content,), stand_ins = with_placeholders(tokenizer, [reply])
    answer = f"accord{secrets.token_hex(12)}"
    turns = [*messages, {"role": "assistant", "content": answer}, {"role": "user", "content": content}]
    template = {} if tokenizer.chat_template else {"chat_template": PLAIN_TEMPLATE}
    try:
        text = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False, **template)
    except TemplateError as error:
        raise BadInput(f"the chat template refuses a dialogue of several turns: {error}") from error
    tokens = encode_rendered(tokenizer, text.rpartition(answer)[2], stand_ins, add_special_tokens=False)
    return tokens[1:] if tokens[:1] == [control_tokens(tokenizer).end_of_turn] else tokens


def check_turns(turns: Any) -> Messages:
    """Return the turns of a completion. Raises BadInput unless assistant and user alternate, the assistant last."""
    check_messages(turns)
    roles = [turn["role"] for turn in turns]
    if len(roles) % 2 == 0 or roles != [("assistant", "user")[index % 2] for index in range(len(roles))]:
        raise BadInput("turns must alternate between assistant and user, and begin and end with the assistant")
    return cast(Messages, turns)


def turns_of(row: dict[str, Any]) -> Messages:
    """Return the turns of a row with `turns` or `completion`. Raises BadInput if it has neither in its form."""
    if row.get("turns") is not None:
        return check_turns(row["turns"])
    if not isinstance(row.get("completion"), str):
        raise BadInput("completion must be a string")
    return [{"role": "assistant", "content": row["completion"]}]


def encode_turns(
    tokenizer: Any,
    messages: Messages,
    turns: Messages,
    max_turn_tokens: int | None = None,
    max_tokens: int | None = None,
) -> EncodedTurns:
    """Return the tokens of a completion of several turns after `messages`: those of the chat template.

    Each turn of the assistant has at most max_turn_tokens, as in sampling; a turn that is cut off ends the completion,
    as it ends an episode. A dialogue of more than max_tokens ends after the last turn of the assistant that fits; its
    first turn is always read, like a text.
    """
    tokens: list[int] = []
    spans: list[TurnSpan] = []
    for place, turn in enumerate(turns):
        if turn["role"] == "user":
            continue
        reply: list[int] = []
        if place:
            reply = encode_reply(tokenizer, [*messages, *turns[: place - 2]], turns[place - 1]["content"])
        whole = encode_completion(tokenizer, turn["content"])
        read = whole[:max_turn_tokens]
        if place and max_tokens is not None and len(tokens) + len(reply) + len(read) > max_tokens:
            return EncodedTurns(tokens, spans, True)
        tokens += reply
        spans.append((len(tokens), len(tokens) + len(read)))
        tokens += read
        if len(read) < len(whole):
            return EncodedTurns(tokens, spans, True)
    if turns[-1]["role"] == "user":
        tokens += encode_reply(tokenizer, [*messages, *turns[:-2]], turns[-1]["content"])
    return EncodedTurns(tokens, spans, False)


def tokens_left(positions: int | None, prompt: Sequence[int]) -> int | None:
    """Return how many tokens of a completion fit after a prompt; None without a limit."""
    return None if positions is None else positions - len(prompt)


def appends_eos(tokenizer: Any) -> bool:
    """Return whether the tokenizer appends EOS to every text. It must not stand between turns."""
    return bool(tokenizer("a").input_ids[-1:] == [tokenizer.eos_token_id])


def encode_prompt(tokenizer: Any, messages: Messages, max_prompt_tokens: int, overlong: str = "truncate") -> list[int]:
    """Return the last max_prompt_tokens tokens of a prompt. With overlong="refuse" a longer one raises BadInput."""
    return truncate_prompt(render(tokenizer, messages), max_prompt_tokens, overlong)


def truncate_prompt(tokens: list[int], max_prompt_tokens: int, overlong: str = "truncate") -> list[int]:
    """Return the last max_prompt_tokens tokens. With overlong="refuse" a longer prompt raises BadInput."""
    if len(tokens) > max_prompt_tokens and overlong == "refuse":
        raise BadInput(f"a prompt has {len(tokens)} tokens, more than max_prompt_tokens ({max_prompt_tokens})")
    return tokens[-max_prompt_tokens:]


def encode_completion(tokenizer: Any, text: str, max_completion_tokens: int | None = None) -> list[int]:
    """Return the tokens of a completion and the end-of-turn token, truncated to max_completion_tokens."""
    return [*encode_text(tokenizer, text), control_tokens(tokenizer).end_of_turn][:max_completion_tokens]


def decode_completion(tokenizer: Any, tokens: Sequence[int]) -> str:
    """Return the text of a completion as people read it: without the control token at which it stopped.

    NUL characters are removed: they are invisible, and PostgreSQL does not store them.
    """
    text = text_tokens(tokenizer, tokens)
    decoded = str(tokenizer.decode(text, skip_special_tokens=False, clean_up_tokenization_spaces=False))
    return decoded.replace("\0", "")


def text_tokens(tokenizer: Any, tokens: Sequence[int]) -> list[int]:
    """Return the tokens of a completion without the control token at which it stopped."""
    return list(tokens[:-1]) if tokens and is_not_text(tokenizer, tokens[-1]) else list(tokens)


def read_prompts(tokenizer: Any, rows: Iterable[dict[str, Any]], settings: Settings) -> list[Prompt]:
    """Encode the rows of prompts.jsonl. Raises BadInput for a bad row, or if there is none."""
    prompts = []
    for number, row in enumerate(rows, 1):
        with naming_row("prompts.jsonl", number, row):
            messages = check_messages(row.get("messages"))
            if row.get("split", "train") not in SPLITS:
                raise BadInput(f"split must be train or held_out, not {row['split']!r}")
            untruncated = render(tokenizer, messages)
            tokens = truncate_prompt(untruncated, settings.max_prompt_tokens, settings.overlong_prompts)
            if not tokens:
                raise BadInput("the prompt has no tokens")
        prompts.append(Prompt(row, tokens, len(tokens) < len(untruncated)))
    if not prompts:
        raise BadInput("prompts.jsonl has no prompt")
    return prompts


def budget_batches(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Return indices of rows in batches of at most `budget` tokens, sorted by length. A longer row is alone."""
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
    """Return the items of process `rank`: every count-th one, so that sorted items are shared evenly."""
    return items[rank::count]


def shuffled(count: int, seed: int, number: int) -> list[int]:
    """Return the indices below `count` in the order of pass `number`. Depends on the arguments alone."""
    order = list(range(count))
    random.Random(f"{seed}/{number}").shuffle(order)
    return order
