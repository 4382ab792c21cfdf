"""Control tokens of a tokenizer, and encoding of text that never produces one.

Control tokens are special tokens and the tokens that the chat template puts around turns. The *end-of-turn token* is
the one that the template puts after an assistant's message: `<end_of_turn>` of Gemma, `<|end|>` of Phi-3, `<|im_end|>`
of ChatML, `<|eot_id|>` of Llama 3. Without such a template it is the tokenizer's EOS token. SFT, rewards and sampling
use the same one.

Text is data. A text that spells a control token ("<|end|>") is encoded as ordinary tokens of those characters, by a
copy of the tokenizer in which every control token has a random name. All other texts are encoded by the tokenizer
itself.
"""

import json
import re
import secrets
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from jinja2 import TemplateError
from tokenizers import Encoding, Tokenizer

from training.learner.runtime.jobdir import BadInput

# Contents of a sample dialogue, which shows what the template puts around turns.
QUESTION, REPLY = "accordquestion", "accordreply"

# Further EOS tokens, from the generation config of a model's folder, by tokenizer.
_EXTRA_EOS: WeakKeyDictionary[Any, frozenset[int]] = WeakKeyDictionary()


class ControlTokens(NamedTuple):
    """Ids of the control tokens of a tokenizer."""

    end_of_turn: int
    ends: frozenset[int]  # end-of-turn and EOS tokens: a completion that ends with one is finished
    all: frozenset[int]


def add_eos_tokens(tokenizer: Any, ids: Iterable[int]) -> None:
    """Let these tokens end a completion too, if they are added tokens of the tokenizer.

    Ordinary tokens are ignored: configs carry a default id (2 for Llama) that may be any token of another tokenizer.
    """
    _EXTRA_EOS[tokenizer] = frozenset(tokenizer.added_tokens_decoder.keys() & set(ids))


def control_tokens(tokenizer: Any) -> ControlTokens:
    """Return the tokenizer's control tokens."""
    named = _EXTRA_EOS.get(tokenizer, frozenset())
    return _control_tokens(tokenizer, str(tokenizer.chat_template), len(tokenizer), tokenizer.eos_token_id, named)


@lru_cache(maxsize=16)
def _control_tokens(tokenizer: Any, template: str, size: int, eos: int, named: frozenset[int]) -> ControlTokens:
    # White space is text even if it is an added token, such as the line breaks of Gemma.
    added = {
        token.content: number for number, token in tokenizer.added_tokens_decoder.items() if not token.content.isspace()
    }
    end_of_turn = next(iter(_tokens_in(_after_reply(tokenizer), added)), eos)
    ends = named | {end_of_turn, eos}
    special = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    around = {number for number in _tokens_in(_around_turns(tokenizer), added) if not _is_bracket(number, added)}
    fixed = ends | {tokenizer.bos_token_id, tokenizer.pad_token_id} - {None}
    # The unknown token replaces text that the vocabulary lacks, so it is text, unless it is also another one (GPT-2).
    unknown = {tokenizer.unk_token_id} - fixed
    return ControlTokens(
        end_of_turn, ends, frozenset((special | around | fixed | set(tokenizer.all_special_ids)) - unknown)
    )


def _after_reply(tokenizer: Any) -> str:
    """Return the text that the chat template puts after an assistant's last turn."""
    return _rendered(tokenizer, ["user", "assistant"]).partition(REPLY)[2]


def _around_turns(tokenizer: Any) -> str:
    """Return the texts that the chat template puts before, between and after turns."""
    dialogue = _rendered(tokenizer, ["user", "assistant", "user"])
    return re.sub(f"{QUESTION}|{REPLY}", " ", dialogue) + _after_reply(tokenizer)


def _rendered(tokenizer: Any, roles: list[str]) -> str:
    """Return a dialogue rendered by the chat template; "" if there is none or it refuses the dialogue."""
    if not tokenizer.chat_template:
        return ""
    contents = {"user": QUESTION, "assistant": REPLY}
    try:
        messages = [{"role": role, "content": contents[role]} for role in roles]
        return str(tokenizer.apply_chat_template(messages, tokenize=False))
    except TemplateError:
        return ""


def _tokens_in(text: str, tokens: dict[str, int]) -> list[int]:
    """Return the ids of the tokens that the text spells, in order. The longest match at a position wins."""
    return [tokens[match] for match in _pattern(tokens).findall(text)] if tokens else []


def _pattern(texts: Iterable[str]) -> re.Pattern[str]:
    return re.compile("|".join(re.escape(text) for text in sorted(texts, key=len, reverse=True)))


def _is_bracket(number: int, added: dict[str, int]) -> bool:
    """Return whether a token opens or closes a part of a text, such as <think> and </think>. These are text."""
    (name,) = (content for content, other in added.items() if other == number)
    return name.replace("<", "</", 1) in added or (name.startswith("</") and name.replace("</", "<", 1) in added)


def is_not_text(tokenizer: Any, token: int) -> bool:
    """Return whether a token is a control token, or a row of the embedding without a token of the tokenizer."""
    return token in control_tokens(tokenizer).all or tokenizer.convert_ids_to_tokens(token) is None


def non_text_tokens(tokenizer: Any, vocabulary: int) -> frozenset[int]:
    """Return all such ids below `vocabulary`, the number of rows of the model's embedding."""
    return control_tokens(tokenizer).all | (frozenset(range(vocabulary)) - frozenset(tokenizer.get_vocab().values()))


def encode_text(tokenizer: Any, text: str) -> list[int]:
    """Return the tokens of a text, without any control token. Raises BadInput if the tokenizer cannot do that."""
    tokens = list(tokenizer(text, add_special_tokens=False).input_ids)
    if control_tokens(tokenizer).all.isdisjoint(tokens):
        return tokens
    return _without_control_tokens(tokenizer, _renamed_copy(tokenizer).encode(text), text)


def encoding_of(tokenizer: Any, text: str) -> Encoding:
    """Return the encoding, with offsets, of a text into the tokens of `encode_text`. Needs a tokenizer.json."""
    encoding = tokenizer(text, add_special_tokens=False).encodings[0]
    if control_tokens(tokenizer).all.isdisjoint(encoding.ids):
        return encoding
    return _renamed_copy(tokenizer).backend.encode(text, add_special_tokens=False)


def encode_rendered(tokenizer: Any, text: str, placeholders: dict[str, str], add_special_tokens: bool) -> list[int]:
    """Return the tokens of a rendered template in whose contents placeholders replace spelled control tokens."""
    if not placeholders:
        return list(tokenizer(text, add_special_tokens=add_special_tokens).input_ids)
    copy = _renamed_copy(tokenizer)
    known = copy.added_tokens | placeholders
    named = _pattern(known).sub(lambda match: known[match[0]], text)
    return copy.encode(named, add_special_tokens)


def with_placeholders(tokenizer: Any, contents: list[str]) -> tuple[list[str], dict[str, str]]:
    """Replace spelled control tokens in the contents; return the contents and the text of each placeholder.

    There are no placeholders if no content, encoded by itself, has a control token.
    """
    controls = control_tokens(tokenizer).all
    encoded = (tokenizer(content, add_special_tokens=False).input_ids for content in contents)
    if all(controls.isdisjoint(tokens) for tokens in encoded):
        return contents, {}
    spelled = _spelled(tokenizer)
    placeholders = {content: f"accord{secrets.token_hex(12)}" for content in spelled}
    pattern = _pattern(spelled)
    replaced = [pattern.sub(lambda match: placeholders[match[0]], content) for content in contents]
    return replaced, {placeholder: content for content, placeholder in placeholders.items()}


def _spelled(tokenizer: Any) -> dict[str, int]:
    """Return the control tokens by their text."""
    return {str(tokenizer.convert_ids_to_tokens(number)): number for number in control_tokens(tokenizer).all}


def _without_control_tokens(tokenizer: Any, tokens: list[int], text: str) -> list[int]:
    if not control_tokens(tokenizer).all.isdisjoint(tokens):
        raise BadInput(f"the tokenizer reads {text!r:.80} as a control token, and a text may contain none")
    return tokens


class RenamedCopy(NamedTuple):
    """Copy of a tokenizer in which control tokens keep their ids but have random names."""

    backend: Tokenizer
    added_tokens: dict[str, str]  # text of each added token to its name in the copy

    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
        return list(self.backend.encode(text, add_special_tokens=add_special_tokens).ids)


def _renamed_copy(tokenizer: Any) -> RenamedCopy:
    """Return the copy. Raises BadInput for a tokenizer written in Python, which cannot be copied."""
    if not getattr(tokenizer, "is_fast", False):
        raise BadInput("a text spells a control token, and a tokenizer without tokenizer.json cannot encode it as text")
    return _renamed_copy_of(tokenizer, control_tokens(tokenizer).all)


@lru_cache(maxsize=4)
def _renamed_copy_of(tokenizer: Any, controls: frozenset[int]) -> RenamedCopy:
    names = {content: f"<|{secrets.token_hex(12)}|>" for content in _spelled(tokenizer)}
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    state["truncation"] = state["padding"] = None
    added_tokens = {}
    for token in state["added_tokens"]:
        added_tokens[token["content"]] = names.get(token["content"], token["content"])
        token["content"] = added_tokens[token["content"]]
    _rename(state["model"], names)
    backend = Tokenizer.from_str(json.dumps(state))
    if any(backend.token_to_id(names[content]) != number for content, number in _spelled(tokenizer).items()):
        raise BadInput("a text spells a control token, and the control tokens of this tokenizer cannot be renamed")
    return RenamedCopy(backend, added_tokens)


def _rename(model: dict[str, Any], names: dict[str, str]) -> None:
    """Rename tokens in the vocabulary and merges of a tokenizer's model, which would still match them in a text."""
    if isinstance(model["vocab"], dict):
        model["vocab"] = {names.get(token, token): number for token, number in model["vocab"].items()}
    else:  # Unigram: [token, score] in the order of ids
        model["vocab"] = [[names.get(token, token), score] for token, score in model["vocab"]]
    if model.get("unk_token") in names:
        model["unk_token"] = names[model["unk_token"]]
    if "merges" in model:  # of BPE, pairs of tokens
        pairs = [pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"]]
        model["merges"] = [pair for pair in pairs if not {*pair, "".join(pair)} & names.keys()]
