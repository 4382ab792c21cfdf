"""Comparisons made of a prompt's completions."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from django.db import transaction
from django.utils.translation import gettext as _

from feedback.errors import Invalid
from feedback.imports.batches import hold_intake
from feedback.imports.rows import is_id, read_all, read_gold, refuse
from feedback.models import Comparison, ComparisonItem, Completion, Import, Project
from feedback.queue import sampling

LEAST, MOST = 2, 9
BATCH = 2000
WANTED_OF_GOLD = 30_000  # everybody may get it


@dataclass(frozen=True)
class Compared:
    """What became of the groups."""

    ids: list[int | None]  # aligned with the groups; None: fewer than two different texts, so no comparison
    created: list[int]  # the new ones among them

    @property
    def known(self) -> int:
        """How many groups had their comparison already."""
        return len(self.ids) - self.alike - len(self.created)

    @property
    def alike(self) -> int:
        """How many groups had nothing to compare."""
        return self.ids.count(None)


@transaction.atomic
def add_comparisons(
    project: Project,
    groups: Iterable[Sequence[int]],
    *,
    wanted_rankings: int | None = None,
    priority: int = 0,
    again: bool = False,
    made_by_import: Import | None = None,
) -> Compared:
    """Make a comparison of each group of completion ids; all or none.

    A group whose texts are compared already is known by that comparison, unless it is to be made `again`.

    A group's completions answer one prompt of the project. Texts that look the same (but for white space at the
    ends) are merged, the first one kept; a group with fewer than two different texts makes no comparison, and one
    with more than nine is refused. `wanted_rankings` is the project's unless given; a higher `priority` (−32768 to
    32767) comes first in the queue.
    """
    wanted = project.wanted_rankings if wanted_rankings is None else wanted_rankings
    if not 1 <= wanted <= 100:
        raise Invalid(_("A comparison can want between 1 and 100 rankings."))
    if not -32768 <= priority <= 32767:
        raise Invalid(_("A priority must be between −32,768 and 32,767."))
    return _add(project, [list(group) for group in groups], wanted, priority, again=again, record=made_by_import)


@transaction.atomic
def add_gold(project: Project, rows: Iterable[object], *, made_by_import: Import | None = None) -> list[int]:
    """Make comparisons whose right ranking is known; all or none. Returns their ids, aligned with the rows.

    A row is `{"completion_ids": [2 to 9 ids], "ranks": [1 = best, equal = tie]}`, aligned, with at least one
    preference and no text twice.
    """
    given = read_all(rows, read_gold)
    # Known by its texts alone, gold could be told to be right otherwise than before: it is always made.
    groups = [row.completion_ids for row in given]
    compared = _add(project, groups, WANTED_OF_GOLD, 0, again=True, record=made_by_import)
    made = Comparison.objects.in_bulk(compared.created)
    errors: list[dict[str, Any]] = []
    for line, (row, pk) in enumerate(zip(given, compared.ids, strict=True), start=1):
        if pk is None or made[pk].size != len(row.ranks):
            errors.append({"line": line, "message": _("Two of these completions have the same text.")})
        else:
            made[pk].gold_ranks = row.ranks
    refuse(errors)
    Comparison.objects.bulk_update(made.values(), ["gold_ranks"], batch_size=BATCH)
    return compared.created


def _add(
    project: Project, groups: list[list[int]], wanted: int, priority: int, *, again: bool, record: Import | None
) -> Compared:
    hold_intake(project)
    ids: list[int | None] = []
    created: list[int] = []
    for start in range(0, len(groups), BATCH):
        batch = _add_batch(project, groups[start : start + BATCH], wanted, priority, start, again, record)
        ids += batch.ids
        created += batch.created
    return Compared(ids, created)


def _add_batch(
    project: Project,
    groups: list[list[int]],
    wanted: int,
    priority: int,
    start: int,
    again: bool,
    record: Import | None,
) -> Compared:
    completions = _find(project, {completion_id for group in groups for completion_id in group})
    chosen = [_distinct(group, completions, start + index) for index, group in enumerate(groups, start=1)]
    keys = [_key(group) if group else None for group in chosen]
    known = {} if again else _known(project, [key for key in keys if key])
    # The first group of each key that is not known makes a comparison; `again`, each of them does.
    first = {key: index for index, key in reversed(list(enumerate(keys)))}
    new = [index for index, key in enumerate(keys) if key and (again or (key not in known and first[key] == index))]
    made = [
        Comparison(
            project=project,
            prompt_id=chosen[index][0].prompt_id,
            size=len(chosen[index]),
            wanted_rankings=wanted,
            open_slots=wanted,
            priority=priority,
            made_by_import=record,
        )
        for index in new
    ]
    for comparison, shuffle_key in zip(made, sampling.keys(project, made), strict=True):
        comparison.shuffle_key = shuffle_key
    Comparison.objects.bulk_create(made)
    ComparisonItem.objects.bulk_create(
        ComparisonItem(
            comparison=comparison,
            prompt_id=each.prompt_id,
            completion=each,
            digest=each.digest,
            position=position,
        )
        for comparison, index in zip(made, new, strict=True)
        for position, each in enumerate(chosen[index])
    )
    ids = dict(zip(new, (comparison.pk for comparison in made), strict=True))
    known |= {key: ids[index] for index in new if (key := keys[index])}
    found = [None if key is None else ids.get(index, known[key]) for index, key in enumerate(keys)]
    return Compared(found, [comparison.pk for comparison in made])


Key = tuple[int, frozenset[str]]


def _key(group: list[Completion]) -> Key:
    """What a group compares: a prompt's texts, whoever wrote them and in whatever order."""
    return group[0].prompt_id, frozenset(each.digest for each in group)


def _known(project: Project, keys: Iterable[Key]) -> dict[Key, int]:
    """Return the project's comparisons of these prompts by what they compare, without gold."""
    items = ComparisonItem.objects.filter(
        comparison__project=project, comparison__gold_ranks__isnull=True, prompt_id__in={key[0] for key in keys}
    )
    digests: dict[tuple[int, int], set[str]] = defaultdict(set)
    for comparison_id, prompt_id, digest in items.order_by().values_list("comparison_id", "prompt_id", "digest"):
        digests[comparison_id, prompt_id].add(digest)
    return {(prompt_id, frozenset(each)): pk for (pk, prompt_id), each in sorted(digests.items(), reverse=True)}


def _find(project: Project, ids: set[int]) -> dict[int, Completion]:
    if not all(is_id(each) for each in ids):
        raise Invalid(_("A completion's id must be a whole number."))
    found = Completion.objects.filter(pk__in=ids, prompt__project=project).only("prompt_id", "digest", "text")
    completions = {each.pk: each for each in found}
    if missing := ids - completions.keys():
        raise Invalid(_("There is no completion %(min)s in this project.") % {"min": min(missing)})
    return completions


def _distinct(group: list[int], completions: dict[int, Completion], number: int) -> list[Completion]:
    """The group's completions without repeated texts; empty if fewer than two are left.

    Blanks at the end, which nobody sees, make no other text; those at the beginning do (an indented line).
    """
    by_text = {completions[each].text.rstrip(): completions[each] for each in reversed(group)}
    distinct = [completions[each] for each in dict.fromkeys(group) if completions[each] in by_text.values()]
    if len({each.prompt_id for each in distinct}) > 1:
        raise Invalid(
            _("Group %(number)s has completions of different prompts, which cannot be compared.") % {"number": number}
        )
    if len(distinct) > MOST:
        raise Invalid(
            _("Group %(number)s has %(count)s different completions, and %(most)s is the most.")
            % {"number": number, "count": len(distinct), "most": MOST}
        )
    return distinct if len(distinct) >= LEAST else []
