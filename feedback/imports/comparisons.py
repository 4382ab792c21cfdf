"""Add comparisons and gold comparisons of completions."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from django.db import transaction
from django.utils.translation import gettext as _

from feedback.dialogues import visible_key
from feedback.errors import Invalid
from feedback.imports.rows import is_id, read_all, read_gold, refuse
from feedback.imports.undo import block_undo
from feedback.models import Comparison, ComparisonItem, Completion, Import, Project, Trial
from feedback.queue import sampling

MIN_COMPLETIONS, MAX_COMPLETIONS = 2, 9
BATCH_SIZE = 2000  # groups per query
GOLD_WANTED_RANKINGS = 30_000  # enough for every annotator


@dataclass(frozen=True)
class AddedComparisons:
    """Result of `add_comparisons`."""

    ids: list[int | None]  # aligned with the groups; None: fewer than two different texts, so no comparison
    created: list[int]  # the new ones of them

    @property
    def known(self) -> int:
        """Number of groups that had a comparison already."""
        return len(self.ids) - self.alike - len(self.created)

    @property
    def alike(self) -> int:
        """Number of groups with fewer than two different texts."""
        return self.ids.count(None)


@transaction.atomic
def add_comparisons(
    project: Project,
    groups: Iterable[Sequence[int]],
    *,
    wanted_rankings: int | None = None,
    priority: int = 0,
    again: bool = False,
    trial: Trial | None = None,
    made_by_import: Import | None = None,
) -> AddedComparisons:
    """Make a comparison of each group of completion ids, all or none.

    The completions of a group answer one prompt of the project. Texts that differ only in white space at the end are
    merged; the first one is kept. A group with fewer than two different texts makes no comparison; one with more than
    nine is refused. If the texts of a group have a comparison already, its id is returned, unless `again` is true.

    wanted_rankings: the project's setting by default. priority: −32768 to 32767; higher values are served first. trial:
    the trial that the new comparisons belong to. Raises Invalid.
    """
    wanted = project.wanted_rankings if wanted_rankings is None else wanted_rankings
    if not 1 <= wanted <= 100:
        raise Invalid(_("The number of rankings per comparison must be between 1 and 100."))
    if not -32768 <= priority <= 32767:
        raise Invalid(_("A priority must be between −32,768 and 32,767."))
    shared = {"wanted_rankings": wanted, "priority": priority, "trial": trial, "made_by_import": made_by_import}
    return _add(project, [list(group) for group in groups], shared, again=again)


@transaction.atomic
def add_gold(project: Project, rows: Iterable[object], *, made_by_import: Import | None = None) -> list[int]:
    """Make gold comparisons, all or none, and return their ids, aligned with the rows.

    A row is `{"completion_ids": [2 to 9 ids], "ranks": [1 is best, equal ranks tie]}`, aligned, with at least one
    preference and no text twice. Raises Invalid with `errors` by line.
    """
    gold = read_all(rows, read_gold)
    groups = [row.completion_ids for row in gold]
    # again=True: a known comparison of the same texts may have other right ranks, or be no gold.
    shared = {"wanted_rankings": GOLD_WANTED_RANKINGS, "made_by_import": made_by_import}
    added = _add(project, groups, shared, again=True)
    made = Comparison.objects.in_bulk(added.created)
    errors: list[dict[str, Any]] = []
    for line, (row, pk) in enumerate(zip(gold, added.ids, strict=True), start=1):
        if pk is None or made[pk].size != len(row.ranks):
            errors.append({"line": line, "message": _("Two of these completions have the same text.")})
        else:
            made[pk].gold_ranks = row.ranks
    refuse(errors)
    Comparison.objects.bulk_update(made.values(), ["gold_ranks"], batch_size=BATCH_SIZE)
    return added.created


def _add(project: Project, groups: list[list[int]], shared: dict[str, Any], *, again: bool) -> AddedComparisons:
    """Add comparisons that share the values of some fields."""
    block_undo(project)
    ids: list[int | None] = []
    created: list[int] = []
    for start in range(0, len(groups), BATCH_SIZE):
        batch = _add_batch(project, groups[start : start + BATCH_SIZE], shared, start, again)
        ids += batch.ids
        created += batch.created
    return AddedComparisons(ids, created)


def _add_batch(
    project: Project, groups: list[list[int]], shared: dict[str, Any], start: int, again: bool
) -> AddedComparisons:
    completions = _find(project, {completion_id for group in groups for completion_id in group})
    distinct = [_distinct(group, completions, start + index) for index, group in enumerate(groups, start=1)]
    keys = [_key(group) if group else None for group in distinct]
    known = {} if again else _known(project, [key for key in keys if key])
    # Of the groups with one unknown key the first makes a comparison. With `again`, each group makes one.
    first = {key: index for index, key in reversed(list(enumerate(keys)))}
    new = [index for index, key in enumerate(keys) if key and (again or (key not in known and first[key] == index))]
    made = [
        Comparison(
            project=project,
            prompt_id=distinct[index][0].prompt_id,
            size=len(distinct[index]),
            open_slots=shared["wanted_rankings"],
            **shared,
        )
        for index in new
    ]
    for comparison, shuffle_key in zip(made, sampling.keys(project, made), strict=True):
        comparison.shuffle_key = shuffle_key
    Comparison.objects.bulk_create(made)
    ComparisonItem.objects.bulk_create(
        ComparisonItem(
            comparison=comparison,
            prompt_id=completion.prompt_id,
            completion=completion,
            digest=completion.digest,
            position=position,
        )
        for comparison, index in zip(made, new, strict=True)
        for position, completion in enumerate(distinct[index])
    )
    ids = dict(zip(new, (comparison.pk for comparison in made), strict=True))
    known |= {key: ids[index] for index in new if (key := keys[index])}
    all_ids = [None if key is None else ids.get(index, known[key]) for index, key in enumerate(keys)]
    return AddedComparisons(all_ids, [comparison.pk for comparison in made])


Key = tuple[int, frozenset[str]]  # prompt id, digests of the texts


def _key(group: list[Completion]) -> Key:
    """Return the identity of a comparison: its prompt and texts, without their sources and order."""
    return group[0].prompt_id, frozenset(completion.digest for completion in group)


def _known(project: Project, keys: Iterable[Key]) -> dict[Key, int]:
    """Return the ids of the project's comparisons of these prompts by key.

    Gold, pairs of demonstrations and comparisons of trials are left out: they do not get the project's rankings.
    """
    items = ComparisonItem.objects.filter(
        comparison__project=project,
        comparison__gold_ranks__isnull=True,
        comparison__demonstration__isnull=True,
        comparison__trial__isnull=True,
        prompt_id__in={key[0] for key in keys},
    )
    digests: dict[tuple[int, int], set[str]] = defaultdict(set)
    for comparison_id, prompt_id, digest in items.order_by().values_list("comparison_id", "prompt_id", "digest"):
        digests[comparison_id, prompt_id].add(digest)
    # Reversed, so that the oldest of several comparisons of the same texts wins.
    by_age = sorted(digests.items(), reverse=True)
    return {(prompt_id, frozenset(texts)): pk for (pk, prompt_id), texts in by_age}


def _find(project: Project, ids: set[int]) -> dict[int, Completion]:
    if not all(is_id(completion_id) for completion_id in ids):
        raise Invalid(_("A completion's id must be a whole number."))
    rows = Completion.objects.filter(pk__in=ids, prompt__project=project).only("prompt_id", "digest", "text", "turns")
    completions = {completion.pk: completion for completion in rows}
    if missing := ids - completions.keys():
        raise Invalid(_("There is no completion %(min)s in this project.") % {"min": min(missing)})
    return completions


def _distinct(group: list[int], completions: dict[int, Completion], number: int) -> list[Completion]:
    """Return the group's completions without repeated texts; empty if fewer than two are left.

    White space at the end is invisible and makes no different text. At the beginning it does: a line may be indented.
    """
    members = [completions[completion_id] for completion_id in dict.fromkeys(group)]
    first_by_text = {visible_key(completion.answer): completion for completion in reversed(members)}
    distinct = [completion for completion in members if completion in first_by_text.values()]
    if len({completion.prompt_id for completion in distinct}) > 1:
        raise Invalid(
            _("Group %(number)s has completions of different prompts, which cannot be compared.") % {"number": number}
        )
    if len(distinct) > MAX_COMPLETIONS:
        raise Invalid(
            _("Group %(number)s has %(count)s different completions, more than the maximum of %(most)s.")
            % {"number": number, "count": len(distinct), "most": MAX_COMPLETIONS}
        )
    return distinct if len(distinct) >= MIN_COMPLETIONS else []
