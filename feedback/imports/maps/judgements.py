"""The judgement of a row: ranks, strength, ratings, flags and marks, who made it and when."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from django.utils.translation import gettext as _

from feedback import dialogues, validation
from feedback.imports.maps import values
from feedback.imports.maps.description import Map
from feedback.imports.maps.draft import Draft, RowJudgement, items_of
from feedback.imports.maps.values import MISSING, FieldError, lookup, needed, optional
from feedback.imports.rows import dense

MAX_SECONDS = 24 * 3600.0
RATING_POINTS = 5
NO_RATING = ("", "n/a", "none", "null", "-")


def judgement_of(draft: Draft, row: Mapping[str, Any], made: Map, left_out: list[str]) -> RowJudgement | None:
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
    names = [values.label(needed(item, where.names)) for item in items_of(row, made)]
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


def without_repeated_texts(draft: Draft, judgement: RowJudgement) -> RowJudgement:
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


def rating_of(value: object, path: str, lowest: int) -> int | None:
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
        rating = [None if one is None else rating_of(one, path, 1) for one in values.as_list(listed, path)]
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
