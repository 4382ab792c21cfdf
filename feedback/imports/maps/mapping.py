"""Rows of a file to prompts, completions and judgements, as a map says."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from django.utils.translation import gettext as _

from feedback import dialogues, validation
from feedback.errors import Invalid
from feedback.imports.maps import conversations, values
from feedback.imports.maps.description import Map
from feedback.imports.maps.values import MISSING, FieldError, lookup, needed, optional
from feedback.imports.rows import PromptRow, dense, digest_of_messages, read_prompt_values

MAX_COMPLETIONS = 9
MAX_SECONDS = 24 * 3600.0
RATING_POINTS = 5
NO_RATING = ("", "n/a", "none", "null", "-")
Message = dict[str, str]


@dataclass(frozen=True)
class RowJudgement:
    """A judgement of the completions of a row, aligned with them."""

    ranks: list[int]  # dense; empty for a skip
    judge: str  # as the file names them; "": it does not
    seconds: float = 0.0  # 0: unknown
    made_at: datetime | None = None
    strength: int | None = None
    ratings: dict[str, list[int | None]] = field(default_factory=dict)
    flags: list[str] = field(default_factory=list)
    spans: list[dict[str, Any]] = field(default_factory=list)
    comment: str = ""
    display_order: list[int] | None = None  # None: unknown
    is_skip: bool = False
    is_gold: bool = False


@dataclass(frozen=True)
class MappedRow:
    """A prompt with its completions, and one judgement of them or none."""

    prompt: PromptRow
    judgement: RowJudgement | None
    left_out: tuple[str, ...] = ()  # what the row has and the product cannot hold, such as "strength"
    passed_over: bool = False  # the row takes an earlier one back, so nothing is imported


@dataclass
class Draft:
    """A row on its way: messages, completions, and what the file says of each completion."""

    messages: list[Message]
    prompt: dict[str, Any]  # the other values of the prompt
    completions: list[dict[str, Any]]
    scores: list[float] = field(default_factory=list)  # higher is better; aligned, or empty
    labels: list[bool] = field(default_factory=list)
    ratings: dict[str, list[int | None]] = field(default_factory=dict)

    def add(self, other: "Draft") -> None:
        """Take the completions of a neighbouring row of the same prompt, too."""
        before, more = len(self.completions), len(other.completions)
        for name in {*self.ratings, *other.ratings}:
            mine = self.ratings.get(name, [None] * before)
            self.ratings[name] = mine + other.ratings.get(name, [None] * more)
        self.completions += other.completions
        self.scores += other.scores
        self.labels += other.labels


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
    judgement, items = made.judgement, _items(row, made)
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
        draft.ratings[name] = [_rating(optional(item, path), path, judgement.lowest_rating) for item in rated]
    return draft


def finish(draft: Draft, row: Mapping[str, Any], made: Map) -> MappedRow:
    """Return the checked prompt of a draft and the judgement of its row."""
    left_out: list[str] = []
    judgement = _judgement_of(draft, row, made, left_out)
    if judgement is not None and not judgement.is_skip:
        judgement = _without_repeated_texts(draft, judgement)
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
        if draft is not None and digest_of_messages(part.messages) == digest_of_messages(draft.messages):
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
            _answer(item, made, row, place) for place, item in enumerate(_items(row, made))
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


def _items(row: Mapping[str, Any], made: Map) -> list[Any]:
    path = made.completions.list
    return values.as_list(needed(row, path), path) if path else []


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
        names = [optional(item, where.source) for item in _items(row, made)]
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


# The judgement


def _judgement_of(draft: Draft, row: Mapping[str, Any], made: Map, left_out: list[str]) -> RowJudgement | None:
    where, who = made.judgement, made.who
    if where.label and len(set(draft.labels)) < 2:
        left_out += ["label"] * len(draft.labels)
    if values.as_boolean(optional(row, who.cancelled), who.cancelled):
        return RowJudgement([], _judge(row, made), is_skip=True, comment=_comment(row, made))
    ranks = _ranks(draft, row, made)
    if ranks is None:
        return None
    strength = _strength(row, made, left_out)
    ratings = {name: listed for name, listed in draft.ratings.items() if any(listed)}
    size = len(draft.completions)
    if column := optional(row, where.ratings_column):
        ratings |= _ratings_of_all(column, size, where.ratings_column)
    seconds = optional(row, who.seconds)
    time = optional(row, who.time)
    order = optional(row, where.display_order)
    return RowJudgement(
        ranks,
        _judge(row, made),
        min(max(values.as_number(seconds, who.seconds), 0.0), MAX_SECONDS) if seconds is not None else 0.0,
        values.as_time(time, who.time) if time is not None else None,
        strength if size == 2 else None,
        ratings,
        _flags(optional(row, where.flags) or [], where.flags),
        _spans(optional(row, where.spans) or [], draft, where.spans),
        _comment(row, made),
        _order(order, size, where.display_order)
        if order
        else (list(range(size)) if made.completions.in_order else None),
        is_gold=values.as_boolean(optional(row, who.gold), who.gold),
    )


def _ranks(draft: Draft, row: Mapping[str, Any], made: Map) -> list[int] | None:
    """Return dense ranks, aligned with the completions; None if the row has no judgement."""
    where, size = made.judgement, len(draft.completions)
    if where.label:
        return [1 if good else 2 for good in draft.labels] if len(set(draft.labels)) == 2 else None
    if draft.scores:
        if len(draft.scores) != size:
            raise FieldError(
                _("There are %(count)s scores of %(size)s completions.") % {"count": len(draft.scores), "size": size}
            )
        if size < 2:
            return None
        best_first = {score: place for place, score in enumerate(sorted(set(draft.scores), reverse=True), start=1)}
        return [best_first[score] for score in draft.scores]
    if where.first_is_best:
        return [1, *[2] * (size - 1)]
    if where.winner:
        return _ranks_of_label(row, where.winner, where.values)
    if where.one_hot:
        return _ranks_of_mark(row, where.one_hot)
    if where.signed:
        signed = values.as_number(needed(row, where.signed), where.signed)
        return [1, 1] if signed == 0 else [1, 2] if signed < 0 else [2, 1]
    if where.ranks and lookup(row, where.ranks) is not MISSING:
        listed = values.as_list(needed(row, where.ranks), where.ranks)
        if len(listed) != size:
            raise FieldError(
                _("There are %(count)s ranks of %(size)s completions.") % {"count": len(listed), "size": size},
                where.ranks,
                listed,
            )
        return dense([int(values.as_number(rank, where.ranks)) for rank in listed])
    return _ranks_of_order(draft, row, made) if where.order else None


def _ranks_of_label(row: Mapping[str, Any], column: str, known: Mapping[str, Sequence[int]]) -> list[int]:
    label = values.label(needed(row, column))
    if label not in known:
        raise FieldError(
            _('"%(column)s" must be one of: %(known)s.') % {"column": column, "known": ", ".join(known)}, column, label
        )
    return dense(list(known[label]))


def _ranks_of_mark(row: Mapping[str, Any], marks: Mapping[str, Sequence[int]]) -> list[int]:
    marked = [column for column in marks if values.as_boolean(needed(row, column), column)]
    if len(marked) != 1:
        raise FieldError(
            _("Exactly one of these must be 1: %(columns)s.") % {"columns": ", ".join(marks)}, next(iter(marks))
        )
    return dense(list(marks[marked[0]]))


def _ranks_of_order(draft: Draft, row: Mapping[str, Any], made: Map) -> list[int] | None:
    """Read a list of names, the best first. Completions that it does not name are refused or left out."""
    where = made.judgement
    value = optional(row, where.order)
    if value is None:
        return None
    names = [values.label(needed(item, where.names)) for item in _items(row, made)]
    places: dict[str, int] = {}
    for place, tier in enumerate(values.as_list(value, where.order), start=1):
        for name in tier if isinstance(tier, list) else [tier]:
            places[values.label(name)] = place
    if unknown := sorted(places.keys() - set(names)):
        raise FieldError(
            _('"%(column)s" names "%(name)s", which is no completion of the row.')
            % {"column": where.order, "name": unknown[0]},
            where.order,
            value,
        )
    unlisted = [index for index, name in enumerate(names) if name not in places]
    if unlisted and made.rules.unlisted == "refuse":
        raise FieldError(_('"%(name)s" is not in the ranking.') % {"name": names[unlisted[0]]}, where.order, value)
    for index in reversed(unlisted):
        del draft.completions[index], names[index]
    return dense([places[name] for name in names]) if names else None


def _without_repeated_texts(draft: Draft, judgement: RowJudgement) -> RowJudgement:
    """Merge equal texts of equal rank. Raises FieldError if their ranks differ, or one text is left."""
    keys: dict[Any, int] = {}
    kept: list[int] = []
    for index, completion in enumerate(draft.completions):
        key = completion.get("text") if "turns" not in completion else repr(completion["turns"])
        key = key.rstrip() if isinstance(key, str) else key
        first = keys.setdefault(key, index)
        if first == index:
            kept.append(index)
        elif judgement.ranks[first] != judgement.ranks[index]:
            raise FieldError(
                _("Two completions are the same text, and one is preferred to the other."), "", completion.get("text")
            )
    if len(kept) < 2:
        raise FieldError(_("The row ranks fewer than two different texts."))
    if len(kept) == len(draft.completions):
        return judgement
    draft.completions[:] = [draft.completions[index] for index in kept]
    ratings = {name: [listed[index] for index in kept] for name, listed in judgement.ratings.items()}
    order = None if judgement.display_order is None else list(range(len(kept)))
    ranks = dense([judgement.ranks[index] for index in kept])
    return replace(judgement, ranks=ranks, strength=None, ratings=ratings, spans=[], display_order=order)


def _judge(row: Mapping[str, Any], made: Map) -> str:
    """Return the name of who judged, as the file has it: of an object its id."""
    for column in made.who.judge:
        value = optional(row, column)
        if isinstance(value, Mapping):
            value = next((value[name] for name in ("id", "email", "username") if value.get(name) is not None), None)
        if value is not None:
            return values.label(value)
    return ""


def _comment(row: Mapping[str, Any], made: Map) -> str:
    comment = optional(row, made.who.comment)
    return "" if comment is None else validation.text(comment, made.who.comment, 10_000)


def _strength(row: Mapping[str, Any], made: Map, left_out: list[str]) -> int | None:
    where = made.judgement
    strength = optional(row, where.strength)
    if strength is None or values.label(strength) == "0":
        return None
    if not where.strength_scale:
        left_out.append("strength")
        return None
    number = values.as_number(strength, where.strength)
    if number != int(number) or not 1 <= number <= where.strength_scale:
        raise FieldError(
            _("A strength is a whole number from 1 to %(most)s.") % {"most": where.strength_scale},
            where.strength,
            strength,
        )
    return int(number)


def _rating(value: object, path: str, lowest: int) -> int | None:
    """Return a rating from 1 to 5; None where there is none."""
    if value is None or str(value).strip().casefold() in NO_RATING:
        return None
    number = values.as_number(value, path) - lowest + 1
    if number != int(number):
        return None  # a mean of several people is no rating of one
    if not 1 <= number <= RATING_POINTS:
        raise FieldError(_('"%(column)s" is outside of its scale.') % {"column": path}, path, value)
    return int(number)


def _order(value: object, size: int, path: str) -> list[int]:
    order = values.as_list(value, path)
    if not all(type(place) is int for place in order) or sorted(order) != list(range(size)):
        raise FieldError(_('"%(column)s" is not an order of the completions.') % {"column": path}, path, value)
    return order


def _ratings_of_all(value: object, size: int, path: str) -> dict[str, list[int | None]]:
    """Read ratings by attribute: for each a list with a rating from 1 to 5, or null, for each completion."""
    rated: dict[str, list[int | None]] = {}
    for name, listed in values.as_object(value, path).items():
        rating = [None if one is None else _rating(one, path, 1) for one in values.as_list(listed, path)]
        if len(rating) != size:
            raise FieldError(
                _("There are %(count)s ratings of %(size)s completions.") % {"count": len(rating), "size": size},
                path,
                listed,
            )
        rated[validation.filled_text(name, path, max_length=50)] = rating
    return rated


def _flags(value: object, path: str) -> list[str]:
    return [validation.filled_text(flag, path, max_length=50) for flag in values.as_list(value, path)]


def _spans(value: object, draft: Draft, path: str) -> list[dict[str, Any]]:
    """Read marked spans, sorted and without overlaps, as the database asks for them."""
    spans: list[dict[str, Any]] = []
    for item in values.as_list(value, path):
        span = values.as_object(item, path)
        place, start, end = (span.get(name) for name in ("completion", "start", "end"))
        are_whole = type(place) is int and type(start) is int and type(end) is int
        if not are_whole or not 0 <= place < len(draft.completions) or span.get("mark") not in ("good", "bad"):  # type: ignore[operator]
            raise FieldError(_('"%(column)s" has a span of another form.') % {"column": path}, path, span)
        completion = draft.completions[place]  # type: ignore[index]
        text = completion.get("text") or dialogues.text_of(completion.get("turns") or [])
        before = max((other["end"] for other in spans if other["completion"] == place), default=0)
        if not before <= start < end <= len(text):  # type: ignore[operator]
            raise FieldError(
                _('"%(column)s" has a span outside of the text, or two that overlap.') % {"column": path}, path, span
            )
        spans.append({"completion": place, "start": start, "end": end, "mark": span["mark"]})
    return spans
