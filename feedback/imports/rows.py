"""Check of the rows of an upload. Every error is a sentence with the number of its line."""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from feedback import dialogues, validation
from feedback.dialogues import Answer, Turns
from feedback.errors import Invalid, TooLarge
from feedback.imports.lines import UnreadableLine
from feedback.imports.maps import recognition

MAX_ERRORS = 20  # in one answer
MAX_MESSAGES = 1000  # of one prompt
MAX_ROWS = 200_000  # of one upload
ROLES = ("system", "user", "assistant")

# Subjects of error messages. They are lazy, because a look-up of a translation takes longer than the check of a text.
A_PROMPT, A_REFERENCE = gettext_lazy("A prompt"), gettext_lazy("A reference answer")
A_MESSAGE, A_MESSAGES_CONTENT = gettext_lazy("A message"), gettext_lazy("A message's content")
A_COMPLETION, A_COMPLETIONS_TEXT = gettext_lazy("A completion"), gettext_lazy("A completion's text")
A_COMPLETIONS_SOURCE = gettext_lazy("A completion's source")
A_TURN, A_TURNS_CONTENT = gettext_lazy("A turn"), gettext_lazy("A turn's content")

Row = TypeVar("Row")


@dataclass(frozen=True)
class CompletionRow:
    """A completion and the name of its source."""

    text: str
    source: str = "import"
    sampling: dict[str, Any] = field(default_factory=dict)
    is_demonstration: bool = False
    turns: Turns | None = None  # of a dialogue

    @cached_property
    def digest(self) -> str:
        return digest_of_text(self.text) if self.turns is None else dialogues.digest_of(self.turns)

    @cached_property
    def visible_key(self) -> tuple[str, ...]:
        return dialogues.visible_key(Answer(self.text, self.turns))


@dataclass(frozen=True)
class PromptRow:
    """A prompt, with completions that are known already."""

    messages: list[dict[str, str]]
    external_id: str | None
    references: list[str]
    metadata: dict[str, Any]
    completions: list[CompletionRow]
    digest: str


@dataclass(frozen=True)
class AnswerRow:
    """A completion that names its prompt by id or by external id."""

    prompt_id: int | None
    external_id: str | None
    text: str
    sampling: dict[str, Any]
    is_demonstration: bool = False
    turns: Turns | None = None  # of a dialogue

    @property
    def digest(self) -> str:
        return digest_of_text(self.text) if self.turns is None else dialogues.digest_of(self.turns)


@dataclass(frozen=True)
class GoldRow:
    """A gold comparison: completions and their right ranks, aligned and dense."""

    completion_ids: list[int]
    ranks: list[int]


class InvalidRows(Invalid):
    """Rows that cannot be stored: `errors` by line, of which an answer has the first MAX_ERRORS."""

    def __init__(self, message: str, errors: list[dict[str, Any]]) -> None:
        super().__init__(message, errors=errors[:MAX_ERRORS])
        self.errors = errors


def read_all(rows: Iterable[object], read: Callable[[object], Row]) -> list[Row]:
    """Read all rows. Raises Invalid if there are none, or with the errors by line (from 1), at most MAX_ERRORS."""
    good: list[Row] = []
    errors: list[dict[str, Any]] = []
    for line, row in enumerate(rows, start=1):
        if line > MAX_ROWS:
            raise TooLarge(
                _("The upload has more than %(most_rows)s rows: send them in several parts.")
                % {"most_rows": f"{MAX_ROWS:,}"}
            )
        try:
            if isinstance(row, UnreadableLine):
                raise Invalid(row.message)
            good.append(read(row))
        except Invalid as error:
            errors.append({"line": line, "message": error.message})
    refuse(errors)
    if not good:
        raise Invalid(_("There are no rows: send one JSON object per line."))
    return good


def refuse(errors: list[dict[str, Any]]) -> None:
    """Raise InvalidRows with the number of errors and the first MAX_ERRORS of them, if there are any."""
    if not errors:
        return
    more = " " + _("(%(count)s lines cannot be used.)") % {"count": len(errors)} if len(errors) > 1 else ""
    raise InvalidRows(
        _("Line %(line)s: %(message)s%(more)s")
        % {"line": errors[0]["line"], "message": errors[0]["message"], "more": more},
        errors,
    )


def read_prompt(row: object) -> PromptRow:
    """Read `{"messages": […] or "prompt": text, "external_id"?, "references"?, "metadata"?, "completions"?}`."""
    known = {"messages", "prompt", "external_id", "references", "metadata", "completions"}
    if isinstance(row, list) and row and isinstance(row[0], dict):
        raise Invalid(_("The row is a JSON array: send JSON Lines, one object per line (jq -c '.[]' FILE)."))
    if isinstance(row, dict) and not row.keys() <= known and (made := recognition.recognise([row])):
        raise Invalid(
            _(
                'The row looks like %(format)s: import the file with the map "%(map)s", on the page Import, by '
                "POST imports or by the command load."
            )
            % {"format": made.title, "map": made.name}
        )
    return read_prompt_values(validation.known_keys(row, known, A_PROMPT))


def read_prompt_values(values: dict[str, Any]) -> PromptRow:
    """Check the values of a row with known keys."""
    messages = _read_messages(values)
    return PromptRow(
        messages=messages,
        external_id=_read_external_id(values.get("external_id")),
        references=[validation.filled_text(text, A_REFERENCE) for text in _list(values, "references")],
        metadata=validation.json_object(values.get("metadata") or {}, "metadata"),
        completions=[_read_completion(completion) for completion in _list(values, "completions")],
        digest=digest_of_messages(messages),
    )


def read_answer(row: object) -> AnswerRow:
    """Read `{"prompt_id": id or "external_id": text, "text": … or "turns": […], "sampling"?, "demonstration"?}`."""
    known = {"prompt_id", "external_id", "text", "turns", "sampling", "demonstration"}
    values = validation.known_keys(row, known, A_COMPLETION)
    prompt_id, external_id = values.get("prompt_id"), _read_external_id(values.get("external_id"))
    if (prompt_id is None) == (external_id is None):
        raise Invalid(_('A completion names its prompt by either "prompt_id" or "external_id".'))
    if prompt_id is not None and not is_id(prompt_id):
        raise Invalid(_('"prompt_id" must be a whole number.'))
    text, turns = _read_text_or_turns(values, "text")
    return AnswerRow(
        prompt_id,
        external_id,
        text,
        validation.json_object(values.get("sampling") or {}, "sampling"),
        _read_demonstration(values, text, turns),
        turns,
    )


def read_group(row: object) -> list[int]:
    """Read a comparison: `{"completion_ids": [2 to 9 ids]}`."""
    values = validation.known_keys(row, {"completion_ids"}, _("A comparison"))
    ids = _list(values, "completion_ids")
    if not all(is_id(completion_id) for completion_id in ids):
        raise Invalid(_('"completion_ids" must be whole numbers.'))
    return ids


def read_gold(row: object) -> GoldRow:
    """Read a gold comparison: `{"completion_ids": […], "ranks": […]}`, aligned."""
    values = validation.known_keys(row, {"completion_ids", "ranks"}, _("A gold comparison"))
    ids, ranks = read_group({"completion_ids": values.get("completion_ids")}), _list(values, "ranks")
    if len(ids) != len(ranks) or not 2 <= len(ids) <= 9:
        raise Invalid(_('"completion_ids" and "ranks" must have the same length, 2 to 9.'))
    if not all(is_id(rank) and rank <= 9 for rank in ranks):
        raise Invalid(_("A rank is a whole number from 1 (best) to 9; equal numbers tie."))
    if len(set(ranks)) == 1:
        raise Invalid(_("A gold ranking needs at least one preference: all its ranks are equal."))
    return GoldRow(ids, dense(ranks))


def dense(ranks: Sequence[int]) -> list[int]:
    """Return the same weak order without gaps: (2, 4, 4) becomes (1, 2, 2)."""
    places = {rank: place for place, rank in enumerate(sorted(set(ranks)), start=1)}
    return [places[rank] for rank in ranks]


def is_id(value: object) -> bool:
    """Return whether a value can be a primary key: a positive whole number that fits a bigint."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**63


def digest_of_messages(messages: list[dict[str, str]]) -> str:
    """Return the SHA-256 of the canonical JSON: sorted keys, no spaces, UTF-8."""
    canonical = json.dumps(messages, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def digest_of_text(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _read_messages(values: dict[str, Any]) -> list[dict[str, str]]:
    if ("messages" in values) == ("prompt" in values):
        raise Invalid(_('A prompt needs either "messages" or "prompt".'))
    if "prompt" in values:
        return [{"role": "user", "content": validation.filled_text(values["prompt"], "prompt")}]
    messages = [_read_message(message) for message in _list(values, "messages")]
    if not messages:
        raise Invalid(_('"messages" is empty.'))
    if len(messages) > MAX_MESSAGES:
        raise Invalid(
            _('"messages" has %(count)s messages, more than the maximum of %(most_messages)s.')
            % {"count": len(messages), "most_messages": MAX_MESSAGES}
        )
    _check_turns([message["role"] for message in messages])
    return messages


def _read_message(message: object) -> dict[str, str]:
    values = validation.known_keys(message, {"role", "content"}, A_MESSAGE)
    role = values.get("role")
    if role not in ROLES:
        raise Invalid(_('A message\'s "role" must be system, user or assistant.'))
    return {"role": role, "content": validation.filled_text(values.get("content"), A_MESSAGES_CONTENT)}


def _check_turns(roles: list[str]) -> None:
    # Most chat templates raise on any other order, and would do so in the middle of a training run.
    turns = roles[1:] if roles[0] == "system" else roles
    if turns != [("user", "assistant")[index % 2] for index in range(len(turns))]:
        raise Invalid(_("Messages must alternate between user and assistant, after at most one system message."))
    if not turns or turns[-1] != "user":
        raise Invalid(_("The last message must be the user's: completions answer it."))


def _read_external_id(value: object) -> str | None:
    return None if value is None else validation.filled_text(value, "external_id", max_length=200)


def _read_completion(value: object) -> CompletionRow:
    if isinstance(value, str):
        return CompletionRow(validation.text(value, A_COMPLETION))
    values = validation.known_keys(value, {"text", "turns", "source", "sampling", "demonstration"}, A_COMPLETION)
    text, turns = _read_text_or_turns(values, A_COMPLETIONS_TEXT)
    return CompletionRow(
        text,
        validation.filled_text(values.get("source", "import"), A_COMPLETIONS_SOURCE, max_length=200),
        validation.json_object(values.get("sampling") or {}, "sampling"),
        _read_demonstration(values, text, turns),
        turns,
    )


def _read_text_or_turns(values: dict[str, Any], what: str | Promise) -> tuple[str, Turns | None]:
    """Return the text, and the turns of a dialogue. A single turn is a text."""
    if "turns" not in values:
        # May be empty: models write empty completions, and annotators should be able to rank them last.
        return validation.text(values.get("text"), what), None
    if "text" in values:
        raise Invalid(_('A completion has either "text" or "turns".'))
    turns = [_read_turn(turn) for turn in _list(values, "turns")]
    if len(turns) > MAX_MESSAGES:
        raise Invalid(
            _('"turns" has %(count)s messages, more than the maximum of %(most_messages)s.')
            % {"count": len(turns), "most_messages": MAX_MESSAGES}
        )
    roles = [turn["role"] for turn in turns]
    if len(roles) % 2 == 0 or roles != [("assistant", "user")[index % 2] for index in range(len(roles))]:
        raise Invalid(_('"turns" must alternate between assistant and user, and begin and end with the assistant.'))
    if len(turns) == 1:
        return turns[0]["content"], None
    return validation.text(dialogues.text_of(turns), '"turns"'), turns


def _read_turn(turn: object) -> dict[str, str]:
    values = validation.known_keys(turn, {"role", "content"}, A_TURN)
    role = values.get("role")
    if role not in ("assistant", "user"):
        raise Invalid(_('A turn\'s "role" must be assistant or user.'))
    check = validation.text if role == "assistant" else validation.filled_text
    return {"role": role, "content": check(values.get("content"), A_TURNS_CONTENT)}


def _read_demonstration(values: dict[str, Any], text: str, turns: Turns | None) -> bool:
    """Return whether the completion is a demonstration, to be imitated. Raises Invalid for one without a text."""
    is_demonstration = values.get("demonstration", False)
    if not isinstance(is_demonstration, bool):
        raise Invalid(_('"demonstration" must be true or false.'))
    if is_demonstration and not dialogues.last_turn(Answer(text, turns)).strip():
        raise Invalid(_("A demonstration needs a text."))
    return is_demonstration


def _list(values: dict[str, Any], key: str) -> list[Any]:
    value = values.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise Invalid(
            _('"%(key)s" must be a list, not %(value)s.') % {"key": key, "value": validation.name_of_type(value)}
        )
    return value
