"""Rows of a file to prompts, completions and judgements, as a map says."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from django.utils.translation import gettext as _

from feedback.errors import Invalid
from feedback.imports.maps import conversations, values
from feedback.imports.maps.conversations import Message
from feedback.imports.maps.description import Map
from feedback.imports.maps.draft import Draft, MappedRow, items_of
from feedback.imports.maps.judgements import judgement_of, rating_of, without_repeated_texts
from feedback.imports.maps.values import MISSING, FieldError, lookup, needed, optional
from feedback.imports.rows import PromptRow, read_prompt_values

MAX_COMPLETIONS = 9


def map_row(row: Mapping[str, Any], made: Map) -> MappedRow:
    """Return what a flat row says. Raises FieldError or Invalid."""
    if values.as_boolean(bool(optional(row, made.who.retracted)), made.who.retracted):
        return MappedRow(PromptRow([], None, [], {}, [], ""), None, passed_over=True)
    return finish(draft_of(row, made), row, made)


def draft_of(row: Mapping[str, Any], made: Map) -> Draft:
    """Read the prompt and the completions of a row, and what is said of each of them alone."""
    messages, answers = _prompt_and_answers(row, made)
    if made.prompt.system and (system := optional(row, made.prompt.system)):
        messages = [{"role": "system", "content": values.text({"": system}, "")}, *messages]
    draft = Draft(messages, _prompt_values(row, made, messages), [_completion(answer) for answer in answers])
    _name_sources(draft, row, made)
    judgement, items = made.judgement, items_of(row, made)
    if judgement.scores:
        draft.scores = [values.as_number(needed(row, column), column) for column in judgement.scores]
    elif judgement.score:
        draft.scores = [values.as_number(needed(item, judgement.score), judgement.score) for item in items]
    elif judgement.rank:
        draft.scores = [-values.as_number(needed(item, judgement.rank), judgement.rank) for item in items]
    elif judgement.label:
        draft.labels = [values.as_boolean(needed(row, judgement.label), judgement.label)]
        draft.completions[0]["sampling"] = draft.completions[0].get("sampling", {}) | {"label": draft.labels[0]}
    rated: Sequence[Any] = items or [row] * len(draft.completions)
    for name, path in judgement.ratings.items():
        draft.ratings[name] = [rating_of(optional(item, path), path, judgement.lowest_rating) for item in rated]
    return draft


def finish(draft: Draft, row: Mapping[str, Any], made: Map) -> MappedRow:
    """Return the checked prompt of a draft and the judgement of its row."""
    left_out: list[str] = []
    judgement = judgement_of(draft, row, made, left_out)
    if judgement is not None and not judgement.is_skip:
        judgement = without_repeated_texts(draft, judgement)
    if len(draft.completions) > MAX_COMPLETIONS:
        raise FieldError(
            _("The row has %(count)s completions, more than the maximum of %(most)s.")
            % {"count": len(draft.completions), "most": MAX_COMPLETIONS},
            made.completions.list,
        )
    prompt = read_prompt_values({"messages": draft.messages, **draft.prompt, "completions": draft.completions})
    return MappedRow(prompt, judgement, tuple(left_out))


def group_rows(
    rows: Iterable[tuple[list[int], Mapping[str, Any] | Invalid]], made: Map
) -> Iterator[tuple[list[int], MappedRow | Invalid]]:
    """Map neighbouring rows of one prompt together: each holds a completion of its own."""
    lines: list[int] = []
    draft: Draft | None = None
    first: Mapping[str, Any] = {}
    for numbers, row in rows:
        try:
            if isinstance(row, Invalid):
                raise row
            part = draft_of(row, made)
        except Invalid as error:
            yield numbers, error
            continue
        if draft is not None and part.messages == draft.messages:
            lines += numbers
            draft.add(part)
            continue
        if draft is not None:
            yield lines, _finished(draft, first, made)
        lines, draft, first = list(numbers), part, row
    if draft is not None:
        yield lines, _finished(draft, first, made)


def _finished(draft: Draft, row: Mapping[str, Any], made: Map) -> MappedRow | Invalid:
    try:
        return finish(draft, row, made)
    except Invalid as error:
        return error


# The prompt and the texts


def _prompt_and_answers(row: Mapping[str, Any], made: Map) -> tuple[list[Message], list[Any]]:
    """Return the messages, and each completion as a text or as messages that begin with the assistant."""
    prompt, rules = made.prompt, made.rules
    merge = rules.repeated_role == "merge"
    if prompt.chat:
        chat = conversations.messages(needed(row, prompt.chat), prompt.chat, rules.roles, merge=merge)
        messages, answer = conversations.split_last(chat, prompt.chat)
        return messages, [answer]
    messages = _messages(row, made)
    columns = made.completions.columns
    if not columns:
        return _needed_messages(messages), [
            _answer(item, made, row, place) for place, item in enumerate(items_of(row, made))
        ]
    sides = [_side(row, column, made) for column in columns]
    whole = [side for side in sides if isinstance(side, list) and side and side[0]["role"] != "assistant"]
    if len(whole) == len(sides):
        return conversations.split_common(whole, columns, dialogues=rules.dialogues)
    texts = [side for side in sides if isinstance(side, str)]
    if len(texts) == len(sides) and not messages:
        if rules.common_text:
            text, rests = conversations.split_common_text(texts, columns)
            return [{"role": "user", "content": text}], rests
        raise FieldError(
            _('The row has no prompt: "%(column)s" is neither a conversation nor a text with Human: and Assistant:.')
            % {"column": columns[0]},
            columns[0],
            texts[0],
        )
    return _needed_messages(messages), sides


def _messages(row: Mapping[str, Any], made: Map) -> list[Message]:
    """Return the messages of the prompt's own columns; empty if the row has none of them."""
    prompt, rules = made.prompt, made.rules
    merge = rules.repeated_role == "merge"
    if prompt.messages:
        value = lookup(row, prompt.messages)
        if isinstance(value, str) and not value.lstrip().startswith("["):
            return [{"role": "user", "content": value}]
        if value is MISSING and made.completions.columns:
            return []
        return conversations.messages(needed(row, prompt.messages), prompt.messages, rules.roles, merge=merge)
    if prompt.transcript:
        turns = conversations.transcript(values.text(row, prompt.transcript), prompt.transcript, merge=merge)
        return turns[:-1] if turns[-1] == {"role": "assistant", "content": ""} else turns
    if prompt.turns:
        turns_of_user = values.as_list(needed(row, prompt.turns), prompt.turns)
        return [
            {"role": "user", "content": values.text({prompt.turns: turns_of_user and turns_of_user[0]}, prompt.turns)}
        ]
    if not prompt.text:
        return []
    text = values.text(row, prompt.text)
    more = optional(row, prompt.more_text)
    return [{"role": "user", "content": text if more is None else f"{text}\n\n{more}"}]


def _needed_messages(messages: list[Message]) -> list[Message]:
    if not messages:
        raise FieldError(_("The row has no prompt."))
    return messages


def _side(row: Mapping[str, Any], column: str, made: Map) -> str | list[Message]:
    """Return a completion's column as a text, or as messages."""
    value = needed(row, column)
    merge = made.rules.repeated_role == "merge"
    if isinstance(value, str) and made.match.types.get(column) == "messages":
        value = values.as_list(value, column)
    if isinstance(value, str):
        own_prompt = made.prompt.text or made.prompt.messages
        is_transcript = not own_prompt and conversations.is_transcript(value)
        return conversations.transcript(value, column, merge=merge) if is_transcript else value
    turns = [value] if isinstance(value, Mapping) else value
    return conversations.messages(turns, column, made.rules.roles, merge=merge)


def _answer(item: Any, made: Map, row: Mapping[str, Any], place: int) -> Any:
    completions = made.completions
    turns = optional(row, completions.turns)
    if turns and place < len(turns) and (dialogue := values.as_list(turns[place] or [], completions.turns)):
        return dialogue
    if not completions.text:
        return item
    value = needed(item, completions.text)
    return value if isinstance(value, str) else conversations.content(value, completions.text)


def _completion(answer: Any) -> dict[str, Any]:
    """Return a completion as an uploaded row has it."""
    if isinstance(answer, list):
        answer = [{"role": turn.get("role"), "content": turn.get("content")} for turn in answer]
        return {"text": answer[0]["content"]} if len(answer) == 1 else {"turns": answer}
    if isinstance(answer, Mapping):
        return dict(answer)
    return {"text": answer}


def _name_sources(draft: Draft, row: Mapping[str, Any], made: Map) -> None:
    """Set the source and the other details of each completion."""
    where = made.completions
    names: list[Any] = [None] * len(draft.completions)
    if where.sources:
        names = [optional(row, column) for column in where.sources]
    elif where.source_names:
        names = list(where.source_names)
    elif where.source_list:
        names = values.as_list(optional(row, where.source_list) or names, where.source_list)
    elif where.source and where.list:
        names = [optional(item, where.source) for item in items_of(row, made)]
    elif where.source:
        names = [optional(row, where.source)]
    sampling = values.as_list(optional(row, where.sampling) or [], where.sampling)
    for place, completion in enumerate(draft.completions):
        if place < len(names) and names[place] is not None:
            completion["source"] = values.label(names[place])[:200]
        if place < len(sampling) and sampling[place]:
            completion["sampling"] = values.as_object(sampling[place], where.sampling)
        if where.demonstration:
            completion["demonstration"] = True


def _prompt_values(row: Mapping[str, Any], made: Map, messages: list[Message]) -> dict[str, Any]:
    where = made.prompt
    details: dict[str, Any] = {}
    if (external_id := optional(row, where.external_id)) is not None:
        details["external_id"] = values.label(external_id)
    if (references := optional(row, where.references)) is not None:
        as_text = isinstance(references, str) and not references.startswith("[")
        listed = [references] if as_text else values.as_list(references, where.references)
        details["references"] = [text for text in listed if text != ""]
    metadata: dict[str, Any] = {}
    for name, column in where.metadata.items():
        value = optional(row, column)
        if name == "*" and value is not None:
            metadata |= values.as_object(value, column)
        elif value is not None:
            metadata[name] = value
    if (tags := optional(row, where.tags)) is not None:
        metadata["tags"] = [tags] if isinstance(tags, str) else values.as_list(tags, where.tags)
    if where.turns and (later := values.as_list(needed(row, where.turns), where.turns)[1:]):
        metadata["user_turns"] = later
    return details | ({"metadata": metadata} if metadata else {})
