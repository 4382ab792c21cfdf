"""Add prompts, with completions that are known already."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from feedback.errors import Conflict
from feedback.imports import bulk, comparisons, completions
from feedback.imports.rows import PromptRow, read_all, read_prompt, refuse
from feedback.imports.undo import block_undo
from feedback.models import ExternalId, Import, Project, Prompt, Source

BATCH_SIZE = 5000  # rows per query
INSERT = """
    INSERT INTO feedback_prompt
        (project_id, messages, digest, split, external_id, "references", metadata, made_by_import_id, created_at)
    SELECT project, m, d, s, e, r, v, import, moment
    FROM (SELECT %s::bigint AS project, %s::bigint AS import, %s::timestamptz AS moment) AS shared,
        json_to_recordset(%s::json) AS listed (m jsonb, d text, s text, e text, r jsonb, v jsonb)
    ON CONFLICT DO NOTHING RETURNING digest, id"""


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
    news: "News"


@dataclass(frozen=True)
class News:
    """Ids of rows that are new, and of prompts that changed."""

    prompts: set[int]
    completions: set[int]
    changed: set[int]  # prompts
    demonstrations: int  # number of new ones


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
    ids = _ids_by_digest(project, {row.digest for row in prompt_rows})
    before = set(ids.values())
    firsts: dict[str, PromptRow] = {}  # rows of new prompts
    later: list[int] = []  # places of rows whose prompts exist already, or are in an earlier row
    for place, row in enumerate(prompt_rows):
        if row.digest in ids or firsts.setdefault(row.digest, row) is not row:
            later.append(place)
    made = _insert(project, list(firsts.values()), made_by_import)
    ids |= made
    if missing := firsts.keys() - made.keys():
        ids |= _ids_by_digest(project, missing)
        if missing - ids.keys():
            raise Conflict(_external_id_of_somebody())
        later = list(range(len(prompt_rows)))
    prompt_ids = [ids[row.digest] for row in prompt_rows]
    changed = _complete(prompt_rows, prompt_ids, later) | _add_external_ids(project, prompt_rows, prompt_ids)
    stored = _add_completions(project, prompt_rows, prompt_ids, made_by_import)
    groups = stored.ids if compare else []
    added = comparisons.add_comparisons(project, groups, again=again, made_by_import=made_by_import)
    changed &= before
    if made_by_import is not None:
        made_by_import.counts["completed"] = made_by_import.counts.get("completed", 0) + len(changed)
    return AddedPrompts(
        prompt_ids,
        len(firsts),
        len(changed),
        stored.ids,
        added.ids if compare else [None] * len(prompt_rows),
        len(added.created),
        added.known,
        News(set(made.values()), stored.new, changed, stored.demonstrations),
    )


def _external_id_of_somebody() -> str:
    return _("Somebody else added a prompt with one of these external ids just now: send the rows again.")


def _insert(project: Project, rows: list[PromptRow], made_by_import: Import | None) -> dict[str, int]:
    """Store new prompts; return the ids by digest of those that nobody else stored meanwhile."""
    shared = [project.pk, made_by_import and made_by_import.pk, timezone.now()]
    ids: dict[str, int] = {}
    for start in range(0, len(rows), BATCH_SIZE):
        values = [
            {
                "m": row.messages,
                "d": row.digest,
                "s": split_of(row.digest, project.held_out_percent),
                "e": row.external_id,
                "r": row.references,
                "v": row.metadata,
            }
            for row in rows[start : start + BATCH_SIZE]
        ]
        ids |= dict(bulk.execute(INSERT, [*shared, bulk.as_json(values)]))
    return ids


def _complete(rows: list[PromptRow], prompt_ids: list[int], places: list[int]) -> set[int]:
    """Add references and metadata of the rows at `places` to their prompts, and return the ids of changed prompts.

    The tags of a row are added to those of its prompt. Raises Invalid if a row has another value for another key.
    """
    if not places:
        return set()
    prompts = (
        Prompt.objects.select_for_update(no_key=True)
        .only("references", "metadata")
        .order_by("pk")
        .in_bulk({prompt_ids[place] for place in places})
    )
    changed: dict[int, Prompt] = {}
    errors: list[dict[str, Any]] = []
    for place in places:
        row, prompt = rows[place], prompts[prompt_ids[place]]
        references = [*prompt.references, *(text for text in row.references if text not in prompt.references)]
        metadata = row.metadata | prompt.metadata | _all_tags(prompt.metadata, row.metadata)
        different = [name for name, value in row.metadata.items() if name != "tags" and metadata[name] != value]
        if not different and not _holds_tags(metadata, row.metadata):
            different = ["tags"]
        if different:
            message = _('This prompt exists already, with another value of the metadata "%(name)s": %(value)s.')
            value = prompt.metadata[different[0]]
            errors.append({"line": place + 1, "message": message % {"name": different[0], "value": value}})
        elif (references, metadata) != (prompt.references, prompt.metadata):
            prompt.references, prompt.metadata = references, metadata
            changed[prompt.pk] = prompt
    refuse(errors)
    Prompt.objects.bulk_update(changed.values(), ["references", "metadata"], batch_size=BATCH_SIZE)
    return set(changed)


def _all_tags(metadata: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """Return the tags of both, if both are lists."""
    tags, others = metadata.get("tags"), more.get("tags")
    if not isinstance(tags, list) or not isinstance(others, list):
        return {}
    return {"tags": [*tags, *(tag for tag in others if tag not in tags)]}


def _holds_tags(metadata: dict[str, Any], more: dict[str, Any]) -> bool:
    tags, others = metadata.get("tags"), more.get("tags")
    return "tags" not in more or tags == others or (isinstance(tags, list) and isinstance(others, list))


def _add_external_ids(project: Project, rows: list[PromptRow], prompt_ids: list[int]) -> set[int]:
    """Store the rows' external ids, and return the ids of prompts that got a new one. Raises Conflict in a race."""
    wanted = {row.external_id: pk for row, pk in zip(rows, prompt_ids, strict=True) if row.external_id is not None}
    if not wanted:
        return set()
    kept = ExternalId.objects.filter(project=project, value__in=wanted)
    known = set(kept.values_list("value", flat=True))
    new = [ExternalId(project=project, prompt_id=pk, value=name) for name, pk in wanted.items() if name not in known]
    if not new:
        return set()
    ExternalId.objects.bulk_create(new, batch_size=BATCH_SIZE, ignore_conflicts=True)
    if dict(kept.values_list("value", "prompt_id")) != wanted:
        raise Conflict(_external_id_of_somebody())
    changed = {external_id.prompt_id for external_id in new}
    without_id = Prompt.objects.filter(pk__in=changed, external_id__isnull=True).values_list("pk", flat=True)
    first = {pk: name for name, pk in reversed(wanted.items())}
    for pk in without_id:
        Prompt.objects.filter(pk=pk).update(external_id=first[pk])
    return changed


def split_of(digest: str, held_out_percent: int) -> str:
    """Return the split of a prompt: held out if its digest modulo 100 is below the project's percentage."""
    return Prompt.Split.HELD_OUT if int(digest[:15], 16) % 100 < held_out_percent else Prompt.Split.TRAIN


def _ids_by_digest(project: Project, digests: Iterable[str]) -> dict[str, int]:
    statement = "SELECT digest, id FROM feedback_prompt WHERE project_id = %s AND digest = ANY(%s::text[])"
    return dict(bulk.execute(statement, [project.pk, bulk.as_array(digests)]))


def _check_external_ids(project: Project, rows: list[PromptRow]) -> None:
    """Raise Invalid if an external id is of two prompts, in the rows or in the project."""
    external_ids = [row.external_id for row in rows if row.external_id is not None]
    if not external_ids:
        return
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


@dataclass(frozen=True)
class _Stored:
    """Completions of the rows of an upload."""

    ids: list[list[int]]  # aligned with the rows
    new: set[int]
    demonstrations: int  # new ones


def _add_completions(
    project: Project, rows: list[PromptRow], prompt_ids: list[int], made_by_import: Import | None
) -> _Stored:
    """Store the completions of all rows, source by source."""
    places: dict[str, list[tuple[int, int]]] = defaultdict(list)  # by source: (row, place in the row)
    for index, row in enumerate(rows):
        for place, completion in enumerate(row.completions):
            places[completion.source].append((index, place))
    ids = [[0] * len(row.completions) for row in rows]
    new: set[int] = set()
    demonstrations = 0
    for name, of_source in places.items():
        source = completions.get_source(project, name, Source.Kind.IMPORT)
        answered = [prompt_ids[index] for index, _place in of_source]
        answers = [rows[index].completions[place] for index, place in of_source]
        stored = completions.store(source, answered, answers, made_by_import=made_by_import)
        new |= stored.new
        demonstrations += stored.demonstrations
        for (index, place), completion_id in zip(of_source, stored.ids, strict=True):
            ids[index][place] = completion_id
    return _Stored(ids, new, demonstrations)
