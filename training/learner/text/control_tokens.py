"""Control tokens of a tokenizer, and text that never becomes one of them.

A control token has no place in a text: special tokens, and those that the chat template puts around turns. The *end of
turn* is the one that the template puts after what the assistant says: `<end_of_turn>` of Gemma, `<|end|>` of Phi-3,
`<|im_end|>` of ChatML, `<|eot_id|>` of Llama 3. Without such a template it is the tokenizer's EOS token. SFT, rewards
and sampling use the same one.

What people and models wrote is data. A text that spells a control token ("<|end|>") is encoded as ordinary tokens of
those characters, by a copy of the tokenizer in which every control token has another, random name. All other texts are
encoded by the tokenizer itself.
"""

import json
import re
import secrets
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from jinja2 import TemplateError
from tokenizers import Tokenizer

from training.learner.runtime.jobdir import BadInput

QUESTION, REPLY = (
    "accordquestion",
    "accordreply",
)  # contents of a dialogue that shows what the template puts around them

# EOS tokens that the generation config of a model's folder names beside the tokenizer's own, by tokenizer.
_NAMED_ENDS: WeakKeyDictionary[Any, frozenset[int]] = WeakKeyDictionary()


class ControlTokens(NamedTuple):
    """Token ids of a tokenizer that are no text."""

    end_of_turn: int
    ends: frozenset[int]  # end of turn and EOS tokens: a completion that stops at one of them is finished
    all: frozenset[int]


def name_ends(tokenizer: Any, ids: Iterable[int]) -> None:
    """Let these tokens end a completion too, as far as they are added tokens of the tokenizer.

    An ordinary token is not believed to be one: configs carry a default id (2 for Llama), whatever the tokenizer is.
    """
    _NAMED_ENDS[tokenizer] = frozenset(tokenizer.added_tokens_decoder.keys() & set(ids))


def control_tokens(tokenizer: Any) -> ControlTokens:
    """Return the tokenizer's control tokens."""
    named = _NAMED_ENDS.get(tokenizer, frozenset())
    return _control_tokens(tokenizer, str(tokenizer.chat_template), len(tokenizer), tokenizer.eos_token_id, named)


@lru_cache(maxsize=16)
def _control_tokens(tokenizer: Any, template: str, size: int, eos: int, named: frozenset[int]) -> ControlTokens:
    # Blanks are text, also where they are added tokens, as line breaks of Gemma are.
    added = {
        token.content: number for number, token in tokenizer.added_tokens_decoder.items() if not token.content.isspace()
    }
    end_of_turn = next(iter(_found(_after_reply(tokenizer), added)), eos)
    ends = named | {end_of_turn, eos}
    special = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    around = {number for number in _found(_around_turns(tokenizer), added) if not _is_bracket(number, added)}
    fixed = ends | {tokenizer.bos_token_id, tokenizer.pad_token_id} - {None}
    # The unknown token stands for text that the vocabulary lacks, unless it is one of the others as well (GPT-2).
    unknown = {tokenizer.unk_token_id} - fixed
    return ControlTokens(
        end_of_turn, ends, frozenset((special | around | fixed | set(tokenizer.all_special_ids)) - unknown)
    )


def _after_reply(tokenizer: Any) -> str:
    """Return what the chat template puts after an assistant's last turn."""
    return _rendered(tokenizer, ["user", "assistant"]).partition(REPLY)[2]


def _around_turns(tokenizer: Any) -> str:
    """Return what the chat template puts before, between and after turns."""
    dialogue = _rendered(tokenizer, ["user", "assistant", "user"])
    return re.sub(f"{QUESTION}|{REPLY}", " ", dialogue) + _after_reply(tokenizer)


def _rendered(tokenizer: Any, roles: list[str]) -> str:
    """Return a dialogue as text by the chat template; nothing where there is none, or it refuses the dialogue."""
    if not tokenizer.chat_template:
        return ""
    contents = {"user": QUESTION, "assistant": REPLY}
    try:
        messages = [{"role": role, "content": contents[role]} for role in roles]
        return str(tokenizer.apply_chat_template(messages, tokenize=False))
    except TemplateError:
        return ""


def _found(text: str, tokens: dict[str, int]) -> list[int]:
    """Return the ids of the tokens that the text spells, in its order; of two at one place the longer one."""
    return [tokens[match] for match in _pattern(tokens).findall(text)] if tokens else []


def _pattern(texts: Iterable[str]) -> re.Pattern[str]:
    return re.compile("|".join(re.escape(text) for text in sorted(texts, key=len, reverse=True)))


def _is_bracket(number: int, added: dict[str, int]) -> bool:
    """Whether a token opens or closes a part of a text, as <think> and </think> do: that is text, which people see."""
    (name,) = (content for content, other in added.items() if other == number)
    return name.replace("<", "</", 1) in added or (name.startswith("</") and name.replace("</", "<", 1) in added)


def is_no_text(tokenizer: Any, token: int) -> bool:
    """Whether it is a control token, or a row of the model's embedding that the tokenizer has no token for."""
    return token in control_tokens(tokenizer).all or tokenizer.convert_ids_to_tokens(token) is None


def tokens_that_are_no_text(tokenizer: Any, vocabulary: int) -> frozenset[int]:
    """Return all such token ids below `vocabulary`, the number of rows of the model's embedding."""
    return control_tokens(tokenizer).all | (frozenset(range(vocabulary)) - frozenset(tokenizer.get_vocab().values()))


def encode_text(tokenizer: Any, text: str) -> list[int]:
    """Return the tokens of a text as it stands: no control token, whatever it says."""
    tokens = list(tokenizer(text, add_special_tokens=False).input_ids)
    if control_tokens(tokenizer).all.isdisjoint(tokens):
        return tokens
    return _checked(tokenizer, _renamed_copy(tokenizer).encode(text), text)


def encode_rendered(tokenizer: Any, text: str, stand_ins: dict[str, str], add_special_tokens: bool) -> list[int]:
    """Return the tokens of a rendered template, whose contents have stand-ins where they spell control tokens."""
    if not stand_ins:
        return list(tokenizer(text, add_special_tokens=add_special_tokens).input_ids)
    copy = _renamed_copy(tokenizer)
    known = copy.every_added | stand_ins
    named = _pattern(known).sub(lambda match: known[match[0]], text)
    return copy.encode(named, add_special_tokens)


def with_stand_ins(tokenizer: Any, contents: list[str]) -> tuple[list[str], dict[str, str]]:
    """Replace what spells a control token in the contents; return them, and what each stand-in stands for.

    The stand-ins are empty where no content, encoded by itself, has a control token.
    """
    controls = control_tokens(tokenizer).all
    encoded = (tokenizer(content, add_special_tokens=False).input_ids for content in contents)
    if all(controls.isdisjoint(tokens) for tokens in encoded):
        return contents, {}
    spelled = _spelled(tokenizer)
    stand_ins = {content: f"accord{secrets.token_hex(12)}" for content in spelled}
    pattern = _pattern(spelled)
    replaced = [pattern.sub(lambda match: stand_ins[match[0]], content) for content in contents]
    return replaced, {stand_in: content for content, stand_in in stand_ins.items()}


def _spelled(tokenizer: Any) -> dict[str, int]:
    """Return the control tokens by their text."""
    return {str(tokenizer.convert_ids_to_tokens(number)): number for number in control_tokens(tokenizer).all}


def _checked(tokenizer: Any, tokens: list[int], text: str) -> list[int]:
    if not control_tokens(tokenizer).all.isdisjoint(tokens):
        raise BadInput(f"the tokenizer can only read {text!r:.80} as a control token, and texts may hold none")
    return tokens


class RenamedCopy(NamedTuple):
    """A copy of a tokenizer in which control tokens keep their ids, and have names that nobody can guess."""

    backend: Tokenizer
    every_added: dict[str, str]  # the text of each added token, and its name here

    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
        return list(self.backend.encode(text, add_special_tokens=add_special_tokens).ids)


def _renamed_copy(tokenizer: Any) -> RenamedCopy:
    """Raises BadInput for a tokenizer that is written in Python, which cannot be copied so."""
    if not getattr(tokenizer, "is_fast", False):
        raise BadInput("a text spells a control token, and a tokenizer without tokenizer.json cannot tell them apart")
    return _renamed_copy_of(tokenizer, control_tokens(tokenizer).all)


@lru_cache(maxsize=4)
def _renamed_copy_of(tokenizer: Any, controls: frozenset[int]) -> RenamedCopy:
    names = {content: f"<|{secrets.token_hex(12)}|>" for content in _spelled(tokenizer)}
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    state["truncation"] = state["padding"] = None
    every_added = {}
    for token in state["added_tokens"]:
        every_added[token["content"]] = names.get(token["content"], token["content"])
        token["content"] = every_added[token["content"]]
    _rename(state["model"], names)
    backend = Tokenizer.from_str(json.dumps(state))
    if any(backend.token_to_id(names[content]) != number for content, number in _spelled(tokenizer).items()):
        raise BadInput("a text spells a control token, and this tokenizer's control tokens cannot be told from text")
    return RenamedCopy(backend, every_added)


def _rename(model: dict[str, Any], names: dict[str, str]) -> None:
    """Rename tokens in a tokenizer's model: it would find them in a text as it finds any other."""
    if isinstance(model["vocab"], dict):
        model["vocab"] = {names.get(token, token): number for token, number in model["vocab"].items()}
    else:  # Unigram: [token, score] in the order of ids
        model["vocab"] = [[names.get(token, token), score] for token, score in model["vocab"]]
    if model.get("unk_token") in names:
        model["unk_token"] = names[model["unk_token"]]
    if "merges" in model:  # of BPE, pairs of tokens
        pairs = [pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"]]
        model["merges"] = [pair for pair in pairs if not {*pair, "".join(pair)} & names.keys()]
