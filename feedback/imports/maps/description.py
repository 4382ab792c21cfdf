"""Maps: which columns of a file hold the prompt, the completions and the judgement. A map is read from TOML.

A value that names a column is a path: `data.prompt` is the field `prompt` of the column `data`, and `answers.0` the
first item of a list. A column whose own name has dots is found by its whole name first. Where a list or an object is
needed and the column holds a text, the text is read as JSON.
"""

import dataclasses
import json
import tomllib
import types
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args, get_origin, get_type_hints

from django.utils.translation import gettext as _

from feedback.errors import Invalid

Ranks = tuple[int, ...]


@dataclass(frozen=True)
class Match:
    """Conditions by which the format is recognised."""

    columns: tuple[str, ...] = ()  # all of them are in the row
    without: tuple[str, ...] = ()  # none of them is
    endings: tuple[str, ...] = ()  # the names of some columns end so
    types: dict[str, str] = field(default_factory=dict)  # by column: text, messages, transcript, list, object, …


@dataclass(frozen=True)
class PromptColumns:
    """Places of the prompt. Without any of the first six, it is what the completions of the row have in common."""

    text: str = ""  # of the only message, the user's
    more_text: str = ""  # added to it after a blank line, where it is not empty
    messages: str = ""  # a list of {"role", "content"}, or {"from", "value"}
    chat: str = ""  # messages whose last one, the assistant's, is the completion
    transcript: str = ""  # "\n\nHuman: …\n\nAssistant: …"
    turns: str = ""  # the user's texts: the first is the prompt, the others are its metadata `user_turns`
    system: str = ""  # a system message that comes first
    external_id: str = ""
    references: str = ""  # a text or a list of texts
    tags: str = ""  # a list of texts, or a text; kept as the metadata `tags`
    metadata: dict[str, str] = field(default_factory=dict)  # by name: the column


@dataclass(frozen=True)
class CompletionColumns:
    """Places of the completions: in columns of their own, or in a list."""

    columns: tuple[str, ...] = ()  # the completions: texts, messages, or one message
    list: str = ""  # the column or path of a list of completions
    text: str = ""  # with `list`: the path of the text in an item; "": the item is the completion
    turns: str = ""  # with `list`: the column of aligned dialogues, null for one text
    sources: tuple[str, ...] = ()  # with `columns`: aligned columns with the names of the sources
    source_names: tuple[str, ...] = ()  # with `columns`: aligned names of the sources
    source: str = ""  # with `list`: the path of the source's name in an item; with `chat`: its column
    source_list: str = ""  # with `list`: the column of aligned names
    sampling: str = ""  # with `list`: the column of aligned sampling parameters
    demonstration: bool = False  # the completion of a chat is to be imitated
    in_order: bool = False  # the columns were displayed in this order; else the order of display is unknown


@dataclass(frozen=True)
class Judgement:
    """Places of what says which completion is better. Without any of these, nobody has compared the completions."""

    first_is_best: bool = False  # the columns are "chosen" and "rejected"
    winner: str = ""  # a column with a label …
    values: dict[str, Ranks] = field(default_factory=dict)  # … and the ranks that each label means
    one_hot: dict[str, Ranks] = field(default_factory=dict)  # by column: the ranks if it holds 1 or true
    signed: str = ""  # below 0: the first is better, above 0: the second one, 0: a tie
    scores: tuple[str, ...] = ()  # aligned columns; a higher one is better, equal ones tie
    score: str = ""  # with `list`: the path of the score in an item
    rank: str = ""  # with `list`: the path of the rank in an item; lower is better
    ranks: str = ""  # a column with aligned ranks; lower is better
    order: str = ""  # a column with the names of completions, the best first; a nested list ties
    names: str = ""  # with `order`: the path of a completion's name in an item of `list`
    label: str = ""  # true or false of the only completion
    strength: str = ""
    strength_scale: int = 0  # 4 or 9: kept in projects that ask for this scale; 0: left out
    ratings: dict[str, str] = field(default_factory=dict)  # by attribute: the path of the rating in an item of `list`
    ratings_column: str = ""  # an object: attribute to aligned ratings from 1 to 5
    lowest_rating: int = 1  # the worst on the file's scale, which must have five points
    flags: str = ""
    spans: str = ""
    display_order: str = ""


@dataclass(frozen=True)
class Who:
    """Places of who judged and when, and of whether it counts."""

    judge: tuple[str, ...] = ()  # the first of these columns that is filled: a name, a number, or an object with an id
    seconds: str = ""
    time: str = ""  # ISO 8601, or seconds or milliseconds since 1970
    cancelled: str = ""  # true: a skip
    gold: str = ""  # true: the right ranking of a gold comparison
    comment: str = ""
    retracted: str = ""  # filled: the row takes an earlier one back and is passed over


@dataclass(frozen=True)
class Rules:
    """Treatment of odd rows."""

    repeated_role: Literal["merge", "refuse"] = "merge"  # two turns of one role in a row
    dialogues: bool = False  # conversations that differ before their last turn become dialogues; else they are refused
    unlisted: Literal["refuse", "leave_out"] = "refuse"  # completions that a ranking does not name
    group: bool = False  # neighbouring rows of one prompt hold a completion each
    common_text: bool = False  # texts without turns: the prompt is their common beginning
    roles: dict[str, str] = field(default_factory=dict)  # further names of system, user and assistant


@dataclass(frozen=True)
class Map:
    """A format of files with prompts, completions and judgements."""

    name: str
    title: str  # as its users know it
    native: bool = False  # rows are those of the API's uploads of prompts: no column is looked up
    reader: str = ""  # name of a module of `readers` that makes flat rows first
    judge: str = ""  # name of the imported person where the row names none; "": the name of the map
    match: Match = field(default_factory=Match)
    prompt: PromptColumns = field(default_factory=PromptColumns)
    completions: CompletionColumns = field(default_factory=CompletionColumns)
    judgement: Judgement = field(default_factory=Judgement)
    who: Who = field(default_factory=Who)
    rules: Rules = field(default_factory=Rules)

    @property
    def has_judgement(self) -> bool:
        return self.judgement != Judgement()


def read_toml(text: str) -> Map:
    """Return the map that a TOML document describes. Raises Invalid."""
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise Invalid(_("The map is not TOML: %(error)s.") % {"error": error}) from None
    return read_map(values)


def read_map(values: Mapping[str, Any]) -> Map:
    """Return the map of a parsed document. Raises Invalid for an unknown key, a wrong type or a contradiction."""
    made: Map = _build(Map, values, "")
    _check(made)
    return made


def to_toml(made: Map) -> str:
    """Return a map as TOML."""
    values = as_values(made)
    tables = {name: value for name, value in values.items() if isinstance(value, dict)}
    lines = [f"{name} = {_toml(value)}" for name, value in values.items() if name not in tables]
    for name, table in tables.items():
        lines += ["", f"[{name}]", *(f"{key} = {_toml(value)}" for key, value in table.items())]
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    """Return a value of a map: a text, number, boolean, list or inline table. JSON writes the first four alike."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(key)} = {_toml(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def as_values(described: Any) -> dict[str, Any]:
    """Return what differs from the defaults, as `read_map` reads it."""
    values: dict[str, Any] = {}
    for one in dataclasses.fields(described):
        value = getattr(described, one.name)
        default = one.default_factory() if one.default_factory is not dataclasses.MISSING else one.default
        if value != default:
            values[one.name] = as_values(value) if dataclasses.is_dataclass(value) else _plain(value)
    return values


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return {name: _plain(item) for name, item in value.items()} if isinstance(value, dict) else value


def _build(made: Any, values: object, where: str) -> Any:
    if not isinstance(values, Mapping):
        raise Invalid(_('"%(key)s" of the map must be a table.') % {"key": where})
    hints = get_type_hints(made)
    if unknown := sorted(values.keys() - hints.keys()):
        raise Invalid(
            _('The map has the unknown key "%(key)s": the keys here are %(known)s.')
            % {"key": f"{where}{unknown[0]}", "known": ", ".join(sorted(hints))}
        )
    if missing := [one.name for one in dataclasses.fields(made) if _is_needed(one) and not values.get(one.name)]:
        raise Invalid(_('The map has no "%(key)s".') % {"key": f"{where}{missing[0]}"})
    return made(**{name: _convert(hints[name], value, f"{where}{name}") for name, value in values.items()})


def _is_needed(one: dataclasses.Field[Any]) -> bool:
    return one.default is dataclasses.MISSING and one.default_factory is dataclasses.MISSING


def _convert(hint: Any, value: Any, where: str) -> Any:
    """Return the value in the type of a field. Raises Invalid."""
    origin, parts = get_origin(hint), get_args(hint)
    if dataclasses.is_dataclass(hint):
        return _build(hint, value, f"{where}.")
    if origin is tuple and isinstance(value, list):
        return tuple(_convert(parts[0], item, where) for item in value)
    if origin is dict and isinstance(value, Mapping):
        return {str(name): _convert(parts[1], item, f"{where}.{name}") for name, item in value.items()}
    if origin is Literal and value in parts:
        return value
    if isinstance(hint, type) and not isinstance(hint, types.GenericAlias) and type(value) is hint:
        return value
    if origin is Literal:
        wanted = ", ".join(f'"{part}"' for part in parts)
        raise Invalid(_('"%(key)s" of the map must be one of: %(known)s.') % {"key": where, "known": wanted})
    raise Invalid(_('"%(key)s" of the map has a value of another type.') % {"key": where})


def _check(made: Map) -> None:
    """Raise Invalid for parts of a map that contradict each other."""
    prompt, completions, judgement = made.prompt, made.completions, made.judgement
    if made.native:
        return
    ways = [name for name in ("text", "messages", "chat", "transcript", "turns") if getattr(prompt, name)]
    if len(ways) > 1:
        raise Invalid(_("The map has two places of the prompt (%(ways)s): keep one.") % {"ways": ", ".join(ways)})
    if not ways and len(completions.columns) < 2:
        raise Invalid(_("The map does not say where the prompt is."))
    if completions.columns and completions.list:
        raise Invalid(_("The map has completions in columns and in a list: keep one."))
    kinds = ("first_is_best", "winner", "one_hot", "signed", "scores", "score", "rank", "ranks", "order", "label")
    used = [name for name in kinds if getattr(judgement, name)]
    if len(used) > 1:
        raise Invalid(_("The map has two judgements (%(ways)s): keep one.") % {"ways": ", ".join(used)})
    if used and not (completions.columns or completions.list or prompt.chat or made.rules.group):
        raise Invalid(_("The map has a judgement, but does not say where the completions are."))
    size = len(completions.columns)
    of_values = [*judgement.values.values(), *judgement.one_hot.values()]
    if size and any(len(ranks) != size for ranks in of_values):
        raise Invalid(_("The ranks of a label must be as many as the completions."))
    aligned = {"sources": completions.sources, "source_names": completions.source_names, "scores": judgement.scores}
    if wrong := [name for name, columns in aligned.items() if columns and len(columns) != size]:
        raise Invalid(_('"%(key)s" of the map must be as many as the completions.') % {"key": wrong[0]})
    if judgement.strength_scale not in (0, 4, 9):
        raise Invalid(_("The scale of a strength has 4 or 9 points; 0 leaves it out."))
