"""Add prompts, with completions that are known already."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from django.db import transaction
from django.utils.translation import gettext as _

from feedback.errors import Conflict
from feedback.imports import comparisons, completions
from feedback.imports.rows import AnswerRow, PromptRow, read_all, read_prompt, refuse
from feedback.imports.undo import block_undo
from feedback.models import ExternalId, Import, Project, Prompt, Source

BATCH_SIZE = 2000  # rows per query


@dataclass(frozen=True)
class AddedPrompts:
    """Result of `add_prompts`. A prompt whose messages exist already is not added again."""

    prompt_ids: list[int]  # aligned with the rows
    created: int
    changed: int  # known prompts that got new external ids, references or metadata
    completion_ids: list[list[int]]  # aligned with the rows and their completions
    comparison_ids: list[int | None]  # aligned with the rows; None: no comparison
    compared: int  # new comparisons
    compared_before: int  # groups of completions that had a comparison already
    changed_ids: set[int]  # the prompts of `changed`


@transaction.atomic
def add_prompts(
    project: Project,
    rows: Iterable[object],
    *,
    compare: bool = False,
    again: bool = False,
    made_by_import: Import | None = None,
) -> AddedPrompts:
    """Check and store prompts, all or none; with `compare`, also a comparison of each row's completions.

    A row is a JSON object: `messages` (alternating turns, the last one the user's) or `prompt` (a text); optionally
    `external_id` (unique in the project), `references` (texts), `metadata` (an object) and `completions` (texts, or
    `{"text", "source"?, "sampling"?, "demonstration"?}`; the default source is "import", and a demonstration is to be
    imitated). The split is a hash of the messages, so that the same prompt is in the same split everywhere.

    A prompt that exists already keeps its data and gets new external ids, references and metadata. A group of
    completions that has a comparison already makes no new one, unless `again` is true.

    Raises Invalid with `errors=[{"line", "message"}, …]`, lines counted from 1.
    """
    return add_prompt_rows(
        project, read_all(rows, read_prompt), compare=compare, again=again, made_by_import=made_by_import
    )


@transaction.atomic
def add_prompt_rows(
    project: Project,
    prompt_rows: list[PromptRow],
    *,
    compare: bool = False,
    again: bool = False,
    made_by_import: Import | None = None,
) -> AddedPrompts:
    """Store checked prompts like `add_prompts`. Raises InvalidRows."""
    block_undo(project)
    _check_external_ids(project, prompt_rows)
    before = _ids_by_digest(project, prompt_rows)
    new = {row.digest: row for row in reversed(prompt_rows) if row.digest not in before}
    made = [_prompt(project, row, made_by_import) for row in reversed(new.values())]
    Prompt.objects.bulk_create(made, batch_size=BATCH_SIZE, ignore_conflicts=True)
    ids = before | _ids_by_digest(project, new.values())
    if any(row.digest not in ids for row in prompt_rows):
        raise Conflict(_("Somebody else added a prompt with one of these external ids just now: send the rows again."))
    prompt_ids = [ids[row.digest] for row in prompt_rows]
    changed = _complete(prompt_rows, prompt_ids) | _add_external_ids(project, prompt_rows, prompt_ids)
    completion_ids = _add_completions(project, prompt_rows, prompt_ids, made_by_import)
    groups = completion_ids if compare else []
    added = comparisons.add_comparisons(project, groups, again=again, made_by_import=made_by_import)
    changed.intersection_update(before.values())
    completed = len(changed)
    if made_by_import is not None:
        made_by_import.counts["completed"] = made_by_import.counts.get("completed", 0) + completed
    return AddedPrompts(
        prompt_ids,
        len(new),
        completed,
        completion_ids,
        added.ids if compare else [None] * len(prompt_rows),
        len(added.created),
        added.known,
        changed,
    )


def _complete(rows: list[PromptRow], prompt_ids: list[int]) -> set[int]:
    """Add the rows' references and metadata to their prompts, and return the ids of the prompts that changed.

    Raises Invalid if a row has another value for a metadata key than its prompt.
    """
    prompts = Prompt.objects.select_for_update(no_key=True).order_by("pk").in_bulk(prompt_ids)
    changed: dict[int, Prompt] = {}
    errors: list[dict[str, Any]] = []
    for line, (row, prompt_id) in enumerate(zip(rows, prompt_ids, strict=True), start=1):
        prompt = prompts[prompt_id]
        references = [*prompt.references, *(text for text in row.references if text not in prompt.references)]
        metadata = row.metadata | prompt.metadata
        if different := [name for name, value in row.metadata.items() if metadata[name] != value]:
            message = _('This prompt exists already, with another value of the metadata "%(name)s": %(value)s.')
            errors.append({"line": line, "message": message % {"name": different[0], "value": metadata[different[0]]}})
        elif (references, metadata) != (prompt.references, prompt.metadata):
            prompt.references, prompt.metadata = references, metadata
            changed[prompt_id] = prompt
    refuse(errors)
    Prompt.objects.bulk_update(changed.values(), ["references", "metadata"], batch_size=BATCH_SIZE)
    return set(changed)


def _add_external_ids(project: Project, rows: list[PromptRow], prompt_ids: list[int]) -> set[int]:
    """Store the rows' external ids, and return the ids of prompts that got a new one. Raises Conflict in a race."""
    wanted = {row.external_id: pk for row, pk in zip(rows, prompt_ids, strict=True) if row.external_id is not None}
    kept = ExternalId.objects.filter(project=project, value__in=wanted)
    known = set(kept.values_list("value", flat=True))
    new = [ExternalId(project=project, prompt_id=pk, value=name) for name, pk in wanted.items() if name not in known]
    ExternalId.objects.bulk_create(new, batch_size=BATCH_SIZE, ignore_conflicts=True)
    if dict(kept.values_list("value", "prompt_id")) != wanted:
        raise Conflict(_("Somebody else added a prompt with one of these external ids just now: send the rows again."))
    changed = {external_id.prompt_id for external_id in new}
    without_id = Prompt.objects.filter(pk__in=changed, external_id__isnull=True)
    first = {pk: name for name, pk in reversed(wanted.items())}
    for prompt in without_id:
        Prompt.objects.filter(pk=prompt.pk).update(external_id=first[prompt.pk])
    return changed


def split_of(digest: str, held_out_percent: int) -> str:
    """Return the split of a prompt: held out if its digest modulo 100 is below the project's percentage."""
    return Prompt.Split.HELD_OUT if int(digest[:15], 16) % 100 < held_out_percent else Prompt.Split.TRAIN


def _prompt(project: Project, row: PromptRow, made_by_import: Import | None) -> Prompt:
    return Prompt(
        project=project,
        messages=row.messages,
        digest=row.digest,
        split=split_of(row.digest, project.held_out_percent),
        external_id=row.external_id,
        references=row.references,
        metadata=row.metadata,
        made_by_import=made_by_import,
    )


def _ids_by_digest(project: Project, rows: Iterable[PromptRow]) -> dict[str, int]:
    digests = [row.digest for row in rows]
    return dict(Prompt.objects.filter(project=project, digest__in=digests).values_list("digest", "id"))


def _check_external_ids(project: Project, rows: list[PromptRow]) -> None:
    """Raise Invalid if an external id is of two prompts, in the rows or in the project."""
    external_ids = [row.external_id for row in rows if row.external_id is not None]
    stored = ExternalId.objects.filter(project=project, value__in=external_ids)
    known: dict[str | None, str] = dict(stored.values_list("value", "prompt__digest"))
    first: dict[str, tuple[int, str]] = {}  # line and digest
    errors: list[dict[str, Any]] = []
    for line, row in enumerate(rows, start=1):
        if row.external_id is None:
            continue
        earlier, digest = first.setdefault(row.external_id, (line, row.digest))
        if digest != row.digest:
            message = _('external_id "%(id)s" is already on line %(line)s.')
            errors.append({"line": line, "message": message % {"id": row.external_id, "line": earlier}})
        elif known.get(row.external_id, row.digest) != row.digest:
            message = _('external_id "%(id)s" belongs to another prompt already.')
            errors.append({"line": line, "message": message % {"id": row.external_id}})
    refuse(errors)


def _add_completions(
    project: Project, rows: list[PromptRow], prompt_ids: list[int], made_by_import: Import | None
) -> list[list[int]]:
    """Store the completions of all rows, source by source, and return their ids by row."""
    places: dict[str, list[tuple[int, int]]] = defaultdict(list)  # by source: (row, place in the row)
    answers: dict[str, list[AnswerRow]] = defaultdict(list)
    for index, (row, prompt_id) in enumerate(zip(rows, prompt_ids, strict=True)):
        for place, completion in enumerate(row.completions):
            places[completion.source].append((index, place))
            sampling, is_demonstration = completion.sampling, completion.is_demonstration
            answer = AnswerRow(prompt_id, None, completion.text, sampling, is_demonstration, completion.turns)
            answers[completion.source].append(answer)
    ids = [[0] * len(row.completions) for row in rows]
    for name, rows_of_source in answers.items():
        source = completions.get_source(project, name, Source.Kind.IMPORT)
        answered = [answer.prompt_id or 0 for answer in rows_of_source]
        stored = completions.store(source, answered, rows_of_source, made_by_import=made_by_import)
        for (index, place), completion_id in zip(places[name], stored, strict=True):
            ids[index][place] = completion_id
    return ids
