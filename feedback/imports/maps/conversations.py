"""Conversations of foreign formats: roles, content parts, transcripts, and where the prompt ends.

What a prompt cannot hold is refused with a sentence: roles besides system, user and assistant, tool calls, and content
that is no text.
"""

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from django.utils.translation import gettext as _

from feedback.imports.maps.values import FieldError, as_list

Message = dict[str, str]
ROLES = {
    **dict.fromkeys(("system",), "system"),
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "bing", "bard", "model"), "assistant"),
}
SPEAKER = re.compile(r"(?:\A|\n\n)(Human|Assistant|(?<=\A\n\n)System):(?: |(?=\n|\Z))")
BETWEEN = "\n\n"


def messages(value: object, path: str, roles: Mapping[str, str], *, merge: bool = True) -> list[Message]:
    """Read messages in any of the usual forms. Neighbours of one role are merged with a blank line, or refused."""
    read = [_message(item, path, roles) for item in as_list(value, path)]
    merged: list[Message] = []
    for message in read:
        if not merged or merged[-1]["role"] != message["role"]:
            merged.append(dict(message))
        elif merge:
            merged[-1]["content"] += BETWEEN + message["content"]
        else:
            reason = _('Two messages of the role "%(role)s" follow one another.') % {"role": message["role"]}
            raise FieldError(reason, path, message["content"])
    return merged


def transcript(value: str, path: str, *, merge: bool = True) -> list[Message]:
    """Read a text with the turns "\\n\\nHuman: …" and "\\n\\nAssistant: …"; "\\n\\nSystem: …" may come first."""
    parts = SPEAKER.split(value)
    if len(parts) < 3 or parts[0].strip():
        raise FieldError(
            _('"%(column)s" must begin with "Human:", and its turns with "Human:" or "Assistant:" after a blank line.')
            % {"column": path},
            path,
            value,
        )
    named = {"System": "system", "Human": "user", "Assistant": "assistant"}
    turns = [{"role": named[who], "content": text} for who, text in zip(parts[1::2], parts[2::2], strict=True)]
    return messages(turns, path, {}, merge=merge)


def is_transcript(value: object) -> bool:
    return isinstance(value, str) and SPEAKER.match(value.lstrip(" ")) is not None


def split_last(conversation: Sequence[Message], path: str) -> tuple[list[Message], str]:
    """Return the messages before the last one, which must be the assistant's, and its content."""
    if not conversation or conversation[-1]["role"] != "assistant":
        raise FieldError(_("The conversation does not end with an answer of the assistant."), path)
    return list(conversation[:-1]), conversation[-1]["content"]


def split_common(
    sides: Sequence[Sequence[Message]], columns: Sequence[str], *, dialogues: bool
) -> tuple[list[Message], list[list[Message]]]:
    """Return the messages that all sides have in common, and what follows on each side.

    The common part ends with the user. dialogues: several turns may follow; else one answer of the assistant.
    """
    for side, column in zip(sides, columns, strict=True):
        split_last(side, column)
    length = min(len(side) for side in sides) - 1
    same = next((index for index in range(length) if any(side[index] != sides[0][index] for side in sides)), length)
    while same and sides[0][same - 1]["role"] != "user":
        same -= 1
    if not same:
        raise FieldError(_("The conversations do not begin with the same message of the user."), columns[1])
    rests = [list(side[same:]) for side in sides]
    if not dialogues and (odd := next((index for index, rest in enumerate(rests) if len(rest) > 1), None)) is not None:
        raise FieldError(
            _("The conversations differ before the last answer of the assistant, so their prompts are not the same."),
            columns[odd],
            rests[odd][0]["content"],
        )
    return list(sides[0][:same]), rests


def split_common_text(texts: Sequence[str], columns: Sequence[str]) -> tuple[str, list[str]]:
    """Return the common beginning of texts up to its last white space, and the rest of each text."""
    common = os.path.commonprefix(list(texts))  # noqa: RUF071 - character by character is what is wanted
    at = max((place for place, character in enumerate(common) if character.isspace()), default=0)
    if not common[:at].strip():
        raise FieldError(_("The texts have no common beginning that could be the prompt."), columns[0], texts[0])
    return common[:at], [text[at + 1 :] for text in texts]


def _message(item: object, path: str, roles: Mapping[str, str]) -> Message:
    if not isinstance(item, Mapping):
        raise FieldError(_('"%(column)s" must be a list of messages.') % {"column": path}, path, item)
    name = item.get("role", item.get("from"))
    role = roles.get(str(name)) or ROLES.get(str(name).casefold())
    if role not in ("system", "user", "assistant"):
        raise FieldError(
            _('A message has the role "%(role)s", which prompts cannot hold: they have system, user and assistant.')
            % {"role": name},
            path,
            item,
        )
    if item.get("tool_calls") or item.get("function_call"):
        raise FieldError(_("A message calls tools, which prompts and completions cannot hold."), path, item)
    return {"role": role, "content": content(item.get("content", item.get("value", item.get("text"))), path)}


def content(value: object, path: str) -> str:
    """Return the text of a message: a text, a list of text parts, or an object with the answer."""
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping) and isinstance(value.get("answer"), str):
        return str(value["answer"])
    if isinstance(value, list):
        return "".join(_part(part, path) for part in value)
    raise FieldError(_('A message in "%(column)s" has no text.') % {"column": path}, path, value)


def _part(part: Any, path: str) -> str:
    if isinstance(part, str):
        return part
    if isinstance(part, Mapping) and part.get("type", "text") == "text":
        for name in ("text", "value"):
            if isinstance(part.get(name), str):
                return str(part[name])
    kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
    raise FieldError(
        _('A message has a part of the type "%(kind)s", and only text can be kept.') % {"kind": kind}, path, part
    )
