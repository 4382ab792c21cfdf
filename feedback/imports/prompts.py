"""Prompts coming in, with the completions that are known already."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from django.db import transaction
from django.utils.translation import gettext as _

from feedback.errors import Conflict
from feedback.imports import comparisons, completions
from feedback.imports.batches import hold_intake
from feedback.imports.rows import AnswerRow, PromptRow, read_all, read_prompt, refuse
from feedback.models import ExternalId, Import, Project, Prompt, Source

BATCH = 2000


@dataclass(frozen=True)
class AddedPrompts:
    """What became of the rows. A prompt whose messages are known already is not made again."""

    prompt_ids: list[int]  # aligned with the rows
    created: int
    changed: int  # known prompts that were given another external id, references or metadata
    completion_ids: list[list[int]]  # aligned with the rows and their completions
    comparison_ids: list[int | None]  # aligned with the rows; None: none was made
    compared: int  # comparisons that are new
    compared_before: int  # groups of completions whose comparison was there already


@transaction.atomic
def add_prompts(
    project: Project,
    rows: Iterable[object],
    *,
    compare: bool = False,
    again: bool = False,
    made_by_import: Import | None = None,
) -> AddedPrompts:
    """Check and store prompts, all or none; with `compare`, also a comparison of each row's own completions.

    A row is a dict as from JSON: `messages` (alternating turns, ending with the user's) or `prompt` (a text);
    optionally `external_id` (names one prompt in the project), `references` (texts), `metadata` (an object) and
    `completions` (texts, or `{"text", "source"?, "sampling"?}`; the source is "import" unless named).
    The split is drawn by hash of the messages, so the same prompt always falls on the same side.

    A prompt that comes again keeps what it has, and is given what is new: further external ids, references and
    metadata. A group of completions that is compared already is not compared again, unless `again` says so.

    Raises Invalid with `errors=[{"line", "message"}, …]`, lines counted from 1.
    """
    given = read_all(rows, read_prompt)
    hold_intake(project)
    _check_external_ids(project, given)
    before = _ids_by_digest(project, given)
    new = {row.digest: row for row in reversed(given) if row.digest not in before}
    made = [_prompt(project, row, made_by_import) for row in reversed(new.values())]
    Prompt.objects.bulk_create(made, batch_size=BATCH, ignore_conflicts=True)
    ids = before | _ids_by_digest(project, new.values())
    if any(row.digest not in ids for row in given):
        raise Conflict(_("Somebody else added a prompt with one of these external ids just now: send the rows again."))
    prompt_ids = [ids[row.digest] for row in given]
    changed = _complete(given, prompt_ids) | _name(project, given, prompt_ids)
    completion_ids = _add_their_completions(project, given, prompt_ids, made_by_import)
    groups = completion_ids if compare else []
    compared = comparisons.add_comparisons(project, groups, again=again, made_by_import=made_by_import)
    completed = len(changed.intersection(before.values()))
    if made_by_import is not None:
        made_by_import.counts["completed"] = made_by_import.counts.get("completed", 0) + completed
    return AddedPrompts(
        prompt_ids,
        len(new),
        completed,
        completion_ids,
        compared.ids if compare else [None] * len(given),
        len(compared.created),
        compared.known,
    )


def _complete(rows: list[PromptRow], prompt_ids: list[int]) -> set[int]:
    """Add the rows' references and metadata to their prompts. Returns the ids of those that changed.

    Raises Invalid where a row says of a piece of metadata what its prompt says otherwise.
    """
    prompts = Prompt.objects.select_for_update(no_key=True).order_by("pk").in_bulk(prompt_ids)
    changed: dict[int, Prompt] = {}
    errors: list[dict[str, Any]] = []
    for line, (row, prompt_id) in enumerate(zip(rows, prompt_ids, strict=True), start=1):
        prompt = prompts[prompt_id]
        references = [*prompt.references, *(each for each in row.references if each not in prompt.references)]
        metadata = row.metadata | prompt.metadata
        if other := [name for name, value in row.metadata.items() if metadata[name] != value]:
            said = _('This prompt exists already, with another value of the metadata "%(name)s": %(value)s.')
            errors.append({"line": line, "message": said % {"name": other[0], "value": metadata[other[0]]}})
        elif (references, metadata) != (prompt.references, prompt.metadata):
            prompt.references, prompt.metadata = references, metadata
            changed[prompt_id] = prompt
    refuse(errors)
    Prompt.objects.bulk_update(changed.values(), ["references", "metadata"], batch_size=BATCH)
    return set(changed)


def _name(project: Project, rows: list[PromptRow], prompt_ids: list[int]) -> set[int]:
    """Record the rows' external ids. Returns the ids of prompts that got a new one. Raises Conflict in a race."""
    wanted = {row.external_id: pk for row, pk in zip(rows, prompt_ids, strict=True) if row.external_id is not None}
    kept = ExternalId.objects.filter(project=project, value__in=wanted)
    known = set(kept.values_list("value", flat=True))
    new = [ExternalId(project=project, prompt_id=pk, value=name) for name, pk in wanted.items() if name not in known]
    ExternalId.objects.bulk_create(new, batch_size=BATCH, ignore_conflicts=True)
    if dict(kept.values_list("value", "prompt_id")) != wanted:
        raise Conflict(_("Somebody else added a prompt with one of these external ids just now: send the rows again."))
    named = {each.prompt_id for each in new}
    unnamed = Prompt.objects.filter(pk__in=named, external_id__isnull=True)
    first = {pk: name for name, pk in reversed(wanted.items())}
    for prompt in unnamed:
        Prompt.objects.filter(pk=prompt.pk).update(external_id=first[prompt.pk])
    return named


def split_of(digest: str, held_out_percent: int) -> str:
    """Held out when the digest, as a number, falls in the project's share of a hundred."""
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
    found = Prompt.objects.filter(project=project, digest__in=digests)
    return dict(found.values_list("digest", "id"))


def _check_external_ids(project: Project, rows: list[PromptRow]) -> None:
    """An external id names one prompt, for good: neither two in the rows nor another prompt in the project."""
    given = [row.external_id for row in rows if row.external_id is not None]
    found = ExternalId.objects.filter(project=project, value__in=given)
    known: dict[str | None, str] = dict(found.values_list("value", "prompt__digest"))
    first: dict[str, tuple[int, str]] = {}  # line and digest
    errors: list[dict[str, Any]] = []
    for line, row in enumerate(rows, start=1):
        if row.external_id is None:
            continue
        earlier, digest = first.setdefault(row.external_id, (line, row.digest))
        if digest != row.digest:
            said = _("external_id «%(id)s» is already on line %(line)s.")
            errors.append({"line": line, "message": said % {"id": row.external_id, "line": earlier}})
        elif known.get(row.external_id, row.digest) != row.digest:
            said = _("external_id «%(id)s» is another prompt already.")
            errors.append({"line": line, "message": said % {"id": row.external_id}})
    refuse(errors)


def _add_their_completions(
    project: Project, rows: list[PromptRow], prompt_ids: list[int], made_by_import: Import | None
) -> list[list[int]]:
    places: dict[str, list[tuple[int, int]]] = defaultdict(list)  # by source: (row, place in the row)
    answers: dict[str, list[AnswerRow]] = defaultdict(list)
    for index, (row, prompt_id) in enumerate(zip(rows, prompt_ids, strict=True)):
        for place, each in enumerate(row.completions):
            places[each.source].append((index, place))
            answers[each.source].append(AnswerRow(prompt_id, None, each.text, each.sampling))
    ids = [[0] * len(row.completions) for row in rows]
    for name, chosen in answers.items():
        source = completions.get_source(project, name, Source.Kind.IMPORT)
        stored = completions.store(
            source, [row.prompt_id or 0 for row in chosen], chosen, made_by_import=made_by_import
        )
        for (index, place), completion_id in zip(places[name], stored, strict=True):
            ids[index][place] = completion_id
    return ids
