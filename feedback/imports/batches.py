"""Store mapped rows of a file, one batch in one transaction: prompts, completions, comparisons and judgements.

Imports of one project take turns, batch by batch, so that two of them cannot make the same comparison or person twice.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from django.db import transaction
from django.utils.translation import gettext as _

from feedback.errors import Invalid
from feedback.imports import bulk, imported_rankings, people
from feedback.imports.comparisons import (
    MAX_COMPLETIONS,
    Plan,
    Text,
    add_gold,
    announce_work,
    is_idle,
    plan,
)
from feedback.imports.completions import RESERVED_NAMES
from feedback.imports.imported_rankings import ImportedRanking
from feedback.imports.maps.description import Map
from feedback.imports.maps.draft import MappedRow
from feedback.imports.prompts import AddedPrompts, add_prompt_rows
from feedback.imports.rows import CompletionRow, InvalidRows, PromptRow
from feedback.imports.stream import RowError, Unit
from feedback.imports.undo import block_undo
from feedback.models import (
    Comparison,
    ComparisonItem,
    Completion,
    Import,
    Project,
    Skip,
    Source,
)

TURN_CLASS = 0x1318  # any constant: keeps these locks apart from others of the same database


@dataclass(frozen=True)
class Target:
    """The project and the settings of an import."""

    project: Project
    record: Import
    map: Map
    compare: bool = True  # make comparisons for people of rows that nobody has judged
    again: bool = False  # even where the same completions have one
    judge: str = ""  # name of the person where the file names none; "": that of the map


@dataclass
class Outcome:
    """Results of the rows of a batch."""

    imported: int = 0  # lines that added something
    unchanged: int = 0  # lines whose data was there already, or that take another row back
    errors: list[RowError] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)  # new rows by kind
    left_out: Counter[str] = field(default_factory=Counter)


@dataclass
class _Entry:
    """A row of the batch: the unit that it belongs to, and what was made of it."""

    unit: int
    row: MappedRow
    prompt: PromptRow
    is_new: bool = False


@transaction.atomic
def write_batch(target: Target, units: Sequence[Unit]) -> Outcome:
    """Store what the units hold, and return what became of it. A row that cannot be stored does not stop the others."""
    outcome = Outcome()
    errors: dict[int, RowError] = {index: unit.error for index, unit in enumerate(units) if unit.error}
    bulk.execute("SELECT pg_advisory_xact_lock(%s, %s)", [TURN_CLASS, target.project.pk])
    # The commit looks up the rows that new rows refer to. Otherwise PostgreSQL plans some of these look-ups each time.
    bulk.execute("SET LOCAL plan_cache_mode = force_generic_plan", [])
    block_undo(target.project)
    entries = _entries(target, units, errors)
    entries, added = _store_prompts(target, entries, units, errors)
    if added is not None:
        _mark_new(entries, added, outcome)
        _judge(target, entries, added, units, errors, outcome)
    new = {entry.unit for entry in entries if entry.is_new}
    for index, unit in enumerate(units):
        if index in errors:
            outcome.errors.append(errors[index])
            # The other lines of the unit came with this one.
            outcome.errors += [RowError(line, "", "", errors[index].reason) for line in unit.lines[1:]]
        elif index in new:
            outcome.imported += len(unit.lines)
        else:
            outcome.unchanged += len(unit.lines)
    for entry in entries:
        outcome.left_out.update(entry.row.left_out)
    return outcome


def _entries(target: Target, units: Sequence[Unit], errors: dict[int, RowError]) -> list[_Entry]:
    names = {completion.source for unit in units for row in unit.rows for completion in row.prompt.completions}
    renamed = _renamed_sources(target.project, names)
    entries: list[_Entry] = []
    for index, unit in enumerate(units):
        if index in errors:
            continue
        rows = [row for row in unit.rows if not row.passed_over]
        if any(len({one.visible_key for one in row.prompt.completions}) > MAX_COMPLETIONS for row in rows):
            message = _("The row has more than %(most)s different completions.") % {"most": MAX_COMPLETIONS}
            errors[index] = RowError(unit.lines[0], "", "", message)
            continue
        entries += (_Entry(index, row, _with_sources(row.prompt, renamed)) for row in rows)
    return entries


def _renamed_sources(project: Project, names: set[str]) -> dict[str, str]:
    """Return new names for names that only rounds and people may have, unless it is such a source of the project."""
    reserved = {name for name in names if RESERVED_NAMES.fullmatch(name)}
    kept = Source.objects.filter(project=project, name__in=names).values_list("name", "kind")
    here = {name for name, kind in kept if kind != Source.Kind.PERSON}
    people_here = {name for name, kind in kept if kind == Source.Kind.PERSON}
    return {name: f"imported {name}"[:200] for name in (reserved | people_here) - here}


def _with_sources(prompt: PromptRow, renamed: dict[str, str]) -> PromptRow:
    if not renamed:
        return prompt
    completions = [
        CompletionRow(one.text, renamed.get(one.source, one.source), one.sampling, one.is_demonstration, one.turns)
        for one in prompt.completions
    ]
    return PromptRow(
        prompt.messages, prompt.external_id, prompt.references, prompt.metadata, completions, prompt.digest
    )


def _store_prompts(
    target: Target, entries: list[_Entry], units: Sequence[Unit], errors: dict[int, RowError]
) -> tuple[list[_Entry], AddedPrompts | None]:
    """Store prompts and completions; return the entries that were stored. Rows in conflict with others are errors."""
    while entries:
        try:
            with transaction.atomic():
                prompts = [entry.prompt for entry in entries]
                return entries, add_prompt_rows(target.project, prompts, made_by_import=target.record)
        except InvalidRows as refusal:
            for error in refusal.errors:
                unit = entries[error["line"] - 1].unit
                errors.setdefault(unit, RowError(units[unit].lines[0], "", "", error["message"]))
            entries = [entry for entry in entries if entry.unit not in errors]
    return [], None


def _mark_new(entries: list[_Entry], added: AddedPrompts, outcome: Outcome) -> None:
    """Mark the entries that added a prompt, a completion or details of a prompt, and count these."""
    new_prompts, new_completions, changed = {*added.news.prompts}, {*added.news.completions}, {*added.news.changed}
    outcome.counts["prompts"] += len(new_prompts)
    outcome.counts["completions"] += len(new_completions)
    outcome.counts["demonstrations"] += added.news.demonstrations
    for entry, prompt_id, ids in zip(entries, added.prompt_ids, added.completion_ids, strict=True):
        entry.is_new = prompt_id in new_prompts or prompt_id in changed or not new_completions.isdisjoint(ids)
        new_prompts.discard(prompt_id)
        new_completions.difference_update(ids)
        changed.discard(prompt_id)


def _judge(
    target: Target,
    entries: list[_Entry],
    added: AddedPrompts,
    units: Sequence[Unit],
    errors: dict[int, RowError],
    outcome: Outcome,
) -> None:
    """Store comparisons, and the judgements of them."""
    ranked: list[int] = []
    waiting: list[int] = []
    gold: list[int] = []
    for index, entry in enumerate(entries):
        judgement = entry.row.judgement
        if judgement is None or judgement.is_skip:
            waiting.append(index)
        else:
            (gold if judgement.is_gold else ranked).append(index)
    if not target.compare:
        waiting = [index for index in waiting if entries[index].row.judgement is not None]
    shared = {"wanted_rankings": target.project.wanted_rankings, "made_by_import": target.record}
    without = {*added.news.prompts}
    groups = [_texts(entries[index], index, added) for index in waiting]
    planned = plan(target.project, groups, shared, again=target.again, without=without)
    was_idle = is_idle(target.project)
    planned.write()
    announce_work(target.project, was_idle, len(planned.new))
    _mark_comparisons(entries, waiting, planned, outcome)
    _skip(target, entries, waiting, planned, outcome)
    without.difference_update(comparison.prompt_id for comparison in planned.new)
    groups = [_texts(entries[index], index, added) for index in ranked]
    planned = plan(target.project, groups, shared | {"wanted_rankings": 1}, without=without)
    _mark_comparisons(entries, ranked, planned, outcome)
    _rank(target, entries, ranked, planned, units, errors, outcome)
    for index in gold:
        judgement = entries[index].row.judgement
        assert judgement is not None
        if len(set(judgement.ranks)) == 1:
            _refuse(
                entries[index],
                units,
                errors,
                _("A gold ranking needs at least one preference: all its ranks are equal."),
            )
        elif _add_gold_once(target, added.completion_ids[index], judgement.ranks):
            entries[index].is_new = True
            outcome.counts["comparisons"] += 1
            outcome.counts["gold"] += 1


def _texts(entry: _Entry, index: int, added: AddedPrompts) -> list[Text]:
    """Return the stored completions of the entry at `index`, once each."""
    prompt_id, ids = added.prompt_ids[index], added.completion_ids[index]
    texts = (
        Text(pk, prompt_id, one.digest, one.visible_key) for pk, one in zip(ids, entry.prompt.completions, strict=True)
    )
    return list({text.pk: text for text in texts}.values())


def _mark_comparisons(entries: list[_Entry], places: list[int], planned: Plan, outcome: Outcome) -> None:
    new = {comparison.pk for comparison in planned.new}
    outcome.counts["comparisons"] += len(new)
    for index, comparison_id in zip(places, planned.ids, strict=True):
        if comparison_id in new:
            entries[index].is_new = True
            new.discard(comparison_id)


def _rank(
    target: Target,
    entries: list[_Entry],
    places: list[int],
    planned: Plan,
    units: Sequence[Unit],
    errors: dict[int, RowError],
    outcome: Outcome,
) -> None:
    """Store the rankings of the entries at `places`."""
    if not places:
        return
    judges = people.find_or_create(target.project, {_judge_of(target, entries[index]) for index in places})
    rankings: list[ImportedRanking] = []
    of_ranking: list[int] = []
    for index, comparison_id in zip(places, planned.ids, strict=True):
        judgement = entries[index].row.judgement
        assert judgement is not None
        if comparison_id is None:
            _refuse(entries[index], units, errors, _("The row ranks fewer than two different texts."))
            continue
        if judgement.strength is not None and target.map.judgement.strength_scale != target.project.strength_points:
            outcome.left_out["strength"] += 1
            judgement = replace(judgement, strength=None)
        digests = [one.digest for one in entries[index].prompt.completions]
        rankings.append(ImportedRanking(comparison_id, judges[_judge_of(target, entries[index])], digests, judgement))
        of_ranking.append(index)
    results = imported_rankings.store(target.project, target.record, rankings, planned)
    for index, result in zip(of_ranking, results, strict=True):
        if isinstance(result, Invalid):
            _refuse(entries[index], units, errors, result.message)
        elif result:
            entries[index].is_new = True
            outcome.counts["rankings"] += 1


def _refuse(entry: _Entry, units: Sequence[Unit], errors: dict[int, RowError], reason: str) -> None:
    errors.setdefault(entry.unit, RowError(units[entry.unit].lines[0], "", "", reason))


def _skip(target: Target, entries: list[_Entry], places: list[int], planned: Plan, outcome: Outcome) -> None:
    """Store the skips among the entries at `places`."""
    skipped = {
        (comparison_id, _judge_of(target, entries[index])): index
        for index, comparison_id in zip(places, planned.ids, strict=True)
        if comparison_id is not None and entries[index].row.judgement is not None
    }
    if not skipped:
        return
    judges = people.find_or_create(target.project, {name for _comparison, name in skipped})
    known = set(
        Skip.objects.filter(comparison__in={pk for pk, _name in skipped}, annotator__in=judges.values()).values_list(
            "comparison_id", "annotator_id"
        )
    )
    for (comparison_id, name), index in skipped.items():
        if (comparison_id, judges[name]) in known:
            continue
        judgement = entries[index].row.judgement
        assert judgement is not None
        Skip.objects.create(
            comparison_id=comparison_id,
            annotator_id=judges[name],
            lease_id=imported_rankings.key_of(comparison_id, judges[name], 0),
            reason=judgement.comment[:500],
            made_by_import=target.record,
        )
        entries[index].is_new = True
        outcome.counts["skips"] += 1


def _add_gold_once(target: Target, completion_ids: list[int], ranks: list[int]) -> bool:
    """Make a gold comparison unless the project has the same one; return whether it was made."""
    digests = dict(Completion.objects.filter(pk__in=completion_ids).values_list("pk", "digest"))
    right = {digests[pk]: rank for pk, rank in zip(completion_ids, ranks, strict=True)}
    golden = Comparison.objects.filter(
        project=target.project, gold_ranks__isnull=False, items__completion=completion_ids[0], size=len(ranks)
    )
    for pk, gold_ranks in golden.values_list("pk", "gold_ranks"):
        positions = ComparisonItem.objects.filter(comparison=pk).values_list("digest", "position")
        if {digest: gold_ranks[position] for digest, position in positions} == right:
            return False
    add_gold(target.project, [{"completion_ids": completion_ids, "ranks": ranks}], made_by_import=target.record)
    return True


def _judge_of(target: Target, entry: _Entry) -> str:
    """Return the name of who judged. Without one, all rows of this kind of file have one person."""
    judgement = entry.row.judgement
    if judgement is not None and judgement.judge:
        return judgement.judge
    return target.judge or target.map.judge or f"map:{target.map.name}"
