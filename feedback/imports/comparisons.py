"""Add comparisons and gold comparisons of completions."""

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from feedback import webhooks
from feedback.dialogues import answer_of, visible_key
from feedback.errors import Invalid
from feedback.imports import bulk
from feedback.imports.rows import is_id, read_all, read_gold, refuse
from feedback.imports.undo import block_undo
from feedback.models import Comparison, Import, Project, Trial
from feedback.queue import sampling

MIN_COMPLETIONS, MAX_COMPLETIONS = 2, 9
BATCH_SIZE = 5000  # groups per query
FIND = """
    SELECT completion.id, completion.prompt_id, completion.digest, completion.text, completion.turns::text
    FROM feedback_completion AS completion JOIN feedback_prompt AS prompt ON prompt.id = completion.prompt_id
    WHERE completion.id = ANY(%s::bigint[]) AND prompt.project_id = %s"""
# Gold, pairs of demonstrations and comparisons of trials are left out: they do not get the project's rankings.
KNOWN = """
    SELECT comparison.id, comparison.prompt_id, array_agg(item.digest)
    FROM feedback_comparison AS comparison
        JOIN feedback_comparisonitem AS item ON item.comparison_id = comparison.id
        LEFT JOIN feedback_demonstration AS demonstration ON demonstration.pair_id = comparison.id
    WHERE comparison.prompt_id = ANY(%s::bigint[]) AND comparison.project_id = %s
        AND comparison.gold_ranks IS NULL AND comparison.trial_id IS NULL AND demonstration.id IS NULL
    GROUP BY comparison.id ORDER BY comparison.id DESC"""
COLUMNS = (
    "id", "project_id", "prompt_id", "size", "wanted_rankings", "open_slots", "ranking_count", "extra_rankings",
    "gold_ranks", "priority", "shuffle_key", "trial_id", "made_by_import_id", "created_at",
)  # fmt: skip
ITEM_COLUMNS = ("comparison_id", "prompt_id", "completion_id", "position", "digest")
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


class Text(NamedTuple):
    """A stored completion, as far as comparisons need it."""

    pk: int
    prompt_id: int
    digest: str
    visible_key: tuple[str, ...]


@dataclass
class Plan:
    """Comparisons that are not stored yet, with their ids."""

    ids: list[int | None]  # as in `AddedComparisons`
    new: list[Comparison] = field(default_factory=list)
    texts: list[list[Text]] = field(default_factory=list)  # of the new ones, by position

    def write(self) -> None:
        """Store the new comparisons."""
        if not self.new:
            return
        moment = timezone.now()
        rows = ([_column(one, name, moment) for name in COLUMNS] for one in self.new)
        bulk.copy("feedback_comparison", COLUMNS, rows)
        items = (
            (one.pk, text.prompt_id, text.pk, position, text.digest)
            for one, texts in zip(self.new, self.texts, strict=True)
            for position, text in enumerate(texts)
        )
        bulk.copy("feedback_comparisonitem", ITEM_COLUMNS, items)


def _column(comparison: Comparison, name: str, moment: datetime) -> Any:
    if name == "created_at":
        return moment
    if name == "gold_ranks":
        return None if comparison.gold_ranks is None else bulk.as_array(comparison.gold_ranks)
    return getattr(comparison, name)


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
    was_idle = is_idle(project)
    added = _add(project, [list(group) for group in groups], shared, again=again)
    announce_work(project, was_idle, len(added.created))
    return added


def is_idle(project: Project) -> bool:
    """Return whether no comparison waits for rankings, and a webhook wants to know when one does."""
    if "work.waiting" not in project.webhook_events:
        return False
    return not Comparison.objects.filter(project=project, open_slots__gt=0, gold_ranks__isnull=True).exists()


def announce_work(project: Project, was_idle: bool, added: int) -> None:
    """Tell the webhooks that comparisons were added when none waited."""
    if was_idle and added:
        data = {"project": project.slug, "comparisons": added}
        webhooks.emit(project, "work.waiting", f"queue:{project.slug}", data)


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
    texts = _find(project, {completion_id for group in groups for completion_id in group})
    members = [[texts[completion_id] for completion_id in dict.fromkeys(group)] for group in groups]
    planned = plan(project, members, shared, start, again=again)
    planned.write()
    return AddedComparisons(planned.ids, [comparison.pk for comparison in planned.new])


def plan(
    project: Project,
    groups: list[list[Text]],
    shared: dict[str, Any],
    start: int = 0,
    *,
    again: bool = False,
    without: Container[int] = (),
) -> Plan:
    """Return the comparisons of groups; new ones have ids, and are stored by `Plan.write`.

    shared: values of some fields. start: number of groups before these, for messages. without: prompts without a
    comparison, which are not looked up.
    """
    distinct = [_distinct(group, start + index) for index, group in enumerate(groups, start=1)]
    keys = [_key(group) if group else None for group in distinct]
    known = {} if again else _known(project, {key[0] for key in keys if key and key[0] not in without})
    new: list[int] = []
    of_key: dict[Key, int] = {}  # by key: the place of the group that makes its comparison
    for index, key in enumerate(keys):
        # Of the groups with one unknown key the first makes a comparison. With `again`, each group makes one.
        if key and (again or (key not in known and key not in of_key)):
            of_key[key] = index
            new.append(index)
    made = [
        Comparison(
            pk=pk,
            project_id=project.pk,
            prompt_id=distinct[index][0].prompt_id,
            size=len(distinct[index]),
            open_slots=shared["wanted_rankings"],
            **shared,
        )
        for index, pk in zip(new, bulk.new_ids("feedback_comparison", len(new)), strict=True)
    ]
    for comparison, shuffle_key in zip(made, sampling.keys(project, made), strict=True):
        comparison.shuffle_key = shuffle_key
    ids = dict(zip(new, (comparison.pk for comparison in made), strict=True))
    known |= {key: ids[index] for key, index in of_key.items()}
    all_ids = [None if key is None else ids.get(index, known[key]) for index, key in enumerate(keys)]
    return Plan(all_ids, made, [distinct[index] for index in new])


Key = tuple[int, frozenset[str]]  # prompt id, digests of the texts


def _key(group: list[Text]) -> Key:
    """Return the identity of a comparison: its prompt and texts, without their sources and order."""
    return group[0].prompt_id, frozenset(text.digest for text in group)


def _known(project: Project, prompt_ids: set[int]) -> dict[Key, int]:
    """Return the ids of the project's comparisons of these prompts by key."""
    if not prompt_ids:
        return {}
    rows = bulk.execute(KNOWN, [bulk.as_array(prompt_ids), project.pk])
    # The newest come first, so that the oldest of several comparisons of the same texts wins.
    return {(prompt_id, frozenset(digests)): pk for pk, prompt_id, digests in rows}


def _find(project: Project, ids: set[int]) -> dict[int, Text]:
    if not all(is_id(completion_id) for completion_id in ids):
        raise Invalid(_("A completion's id must be a whole number."))
    rows = bulk.execute(FIND, [bulk.as_array(ids), project.pk])
    texts = {
        pk: Text(pk, prompt_id, digest, visible_key(answer_of(text, turns)))
        for pk, prompt_id, digest, text, turns in rows
    }
    if missing := ids - texts.keys():
        raise Invalid(_("There is no completion %(min)s in this project.") % {"min": min(missing)})
    return texts


def _distinct(members: list[Text], number: int) -> list[Text]:
    """Return the group's completions without repeated texts; empty if fewer than two are left.

    White space at the end is invisible and makes no different text. At the beginning it does: a line may be indented.
    """
    first_by_text: dict[tuple[str, ...], Text] = {}
    for member in members:
        first_by_text.setdefault(member.visible_key, member)
    distinct = list(first_by_text.values())
    if len({text.prompt_id for text in distinct}) > 1:
        raise Invalid(
            _("Group %(number)s has completions of different prompts, which cannot be compared.") % {"number": number}
        )
    if len(distinct) > MAX_COMPLETIONS:
        raise Invalid(
            _("Group %(number)s has %(count)s different completions, more than the maximum of %(most)s.")
            % {"number": number, "count": len(distinct), "most": MAX_COMPLETIONS}
        )
    return distinct if len(distinct) >= MIN_COMPLETIONS else []
