"""Label Studio: tasks with annotations of the types `pairwise` and `ranker`.

The texts of a pair are `answer1` and `answer2` of the task's data, or two other columns that end with 1 and 2.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from django.utils.translation import gettext as _

from feedback.imports.maps.description import Rules
from feedback.imports.maps.values import FieldError

SELECTED = {"left": ["1", "2"], "right": ["2", "1"]}
PROMPTS = ("prompt", "question", "instruction", "query", "text")
UNRANKED = ("unranked", "_", "items", "rest")  # buckets of a ranker that hold what nobody ranked


def flat_rows(row: dict[str, Any], rules: Rules) -> Iterator[dict[str, Any]]:
    data = row.get("data")
    if not isinstance(data, Mapping):
        raise FieldError(_('The row has no "%(column)s".') % {"column": "data"}, "data")
    answers = _answers(data)
    flat: dict[str, Any] = {"messages": _prompt(data), "answers": answers, "external_id": row.get("id"), "metadata": {}}
    annotations = [annotation for annotation in row.get("annotations") or [] if isinstance(annotation, Mapping)]
    if not annotations:
        yield flat
    for annotation in annotations:
        by = annotation.get("completed_by", data.get("annotator"))  # the second: exports of Accord
        judgement = flat | {
            "judge": by.get("id", by.get("email"))
            if isinstance(by, Mapping)
            else data.get("annotator")
            if by is None
            else by,
            "seconds": annotation.get("lead_time"),
            "time": annotation.get("created_at"),
            "cancelled": bool(annotation.get("was_cancelled")),
            "gold": bool(annotation.get("ground_truth")),
        }
        if not judgement["cancelled"]:
            judgement["order"] = _order(annotation.get("result") or [])
        yield judgement


def _prompt(data: Mapping[str, Any]) -> list[dict[str, str]]:
    name = next((name for name in PROMPTS if isinstance(data.get(name), str)), None)
    if name is None:
        raise FieldError(_('The row has no "%(column)s".') % {"column": "data.prompt"}, "data.prompt")
    return [{"role": "user", "content": data[name]}]


def _answers(data: Mapping[str, Any]) -> list[dict[str, Any]]:
    items = data.get("items")
    if isinstance(items, list):
        named = data.get("sources")  # our own exports name them beside the items
        sources = named if isinstance(named, list) and len(named) == len(items) else [None] * len(items)
        return [
            {
                "text": next((item[name] for name in ("body", "html", "title") if item.get(name) is not None), None),
                "name": str(item.get("id")),
                "source": item.get("model") or source,
            }
            for item, source in zip(items, sources, strict=True)
            if isinstance(item, Mapping)
        ]
    numbered = {match[1]: name for name in data if (match := re.fullmatch(r"\D*([12])", name))}
    if set(numbered) != {"1", "2"}:
        raise FieldError(_('The row has no "%(column)s".') % {"column": "data.answer1"}, "data.answer1")
    return [{"text": data[numbered[place]], "name": place} for place in ("1", "2")]


def _order(results: list[Any]) -> list[Any]:
    """Return names or tiers of names, the best first."""
    for result in results:
        value = result.get("value") or {}
        if result.get("type") == "pairwise":
            selected = value.get("selected")
            if selected not in SELECTED:
                raise FieldError(_('"selected" must be left or right.'), "annotations.result.value.selected", selected)
            return list(SELECTED[selected])
        if result.get("type") == "ranker":
            return _order_of_ranker(value.get("ranker"))
    raise FieldError(_("The annotation has no result of the type pairwise or ranker."), "annotations.result", results)


def _order_of_ranker(ranker: Any) -> list[Any]:
    """Read a list of ids, one named list, or buckets, the best first, whose items tie."""
    if isinstance(ranker, list):
        return [str(name) for name in ranker]
    if not isinstance(ranker, Mapping) or not ranker:
        raise FieldError(_("The ranker has no list of ids."), "annotations.result.value.ranker", ranker)
    buckets = [(name, ids) for name, ids in ranker.items() if str(name).casefold() not in UNRANKED]
    if len(buckets) == 1:
        return [str(name) for name in buckets[0][1]]
    return [[str(name) for name in ids] for _bucket, ids in buckets if ids]
