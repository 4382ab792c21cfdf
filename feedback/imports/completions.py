"""Add completions: from checkpoints, imports and people."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db import transaction
from django.db.models import Sum
from django.db.models.functions import Length
from django.utils import timezone
from django.utils.translation import gettext as _

from feedback import validation
from feedback.dialogues import Turns, text_of, with_last_turn
from feedback.errors import Invalid, TooManyRequests
from feedback.imports import bulk
from feedback.imports.rows import AnswerRow, CompletionRow, read_all, read_answer, refuse
from feedback.imports.undo import block_undo
from feedback.models import Completion, Demonstration, ExternalId, Import, Membership, Project, Prompt, Source, User

BATCH_SIZE = 5000  # rows per query
INSERT = """
    INSERT INTO feedback_completion
        (prompt_id, source_id, text, turns, digest, sampling, author_id, made_by_import_id, created_at)
    SELECT p, source, t, u, d, s, author, import, moment
    FROM (SELECT %s::bigint AS source, %s::bigint AS author, %s::bigint AS import, %s::timestamptz AS moment) AS shared,
        json_to_recordset(%s::json) AS listed (p bigint, t text, u jsonb, d text, s jsonb)
    ON CONFLICT DO NOTHING RETURNING id, prompt_id, digest"""
FIND = "SELECT id, prompt_id, digest FROM feedback_completion WHERE source_id = %s AND prompt_id = ANY(%s::bigint[])"
MAX_CHARACTERS_PER_HOUR = 300_000  # of demonstrations by one person
Answered = AnswerRow | CompletionRow
RESERVED_NAMES = re.compile(r"(round|person)-\d+")


def get_source(project: Project, name: str, kind: str) -> Source:
    """Return the project's source with this name; create it if it is new. `kind` is one of `Source.Kind`.

    An import may use the name of an existing checkpoint, for completions that it wrote elsewhere. It may not use the
    name of a person, or a new name that a round or a person will need later. Raises Invalid.
    """
    name = validation.filled_text(name, _("A source's name"), max_length=200)
    source = Source.objects.filter(project=project, name=name).first()
    if source is None and kind == Source.Kind.IMPORT and RESERVED_NAMES.fullmatch(name):
        raise Invalid(_('"%(name)s" is reserved for rounds and people: give the import another name.') % {"name": name})
    if source is not None and Source.Kind.PERSON in (source.kind, kind) and source.kind != kind:
        raise Invalid(
            _('"%(name)s" is a source of another kind (%(kind)s): choose another name.')
            % {"name": name, "kind": source.kind}
        )
    return source or Source.objects.get_or_create(project=project, name=name, defaults={"kind": kind})[0]


@transaction.atomic
def add_completions(
    project: Project,
    source: Source,
    rows: Iterable[object],
    *,
    author: User | None = None,
    made_by_import: Import | None = None,
) -> list[int]:
    """Check and store completions by one source, all or none, and return their ids, aligned with the rows.

    A row is a JSON object: `prompt_id` or `external_id` of the prompt, `text` (may be empty) or the `turns` of a
    dialogue, and optionally `sampling` (an object: temperature, seed, whether the completion is finished, …) and
    `demonstration` (true: to be imitated). A text that the source has already for the prompt is not stored again; its
    id is returned.

    Raises Invalid with `errors=[{"line", "message"}, …]`, lines counted from 1.
    """
    if source.project_id != project.pk:
        raise Invalid(_("This source belongs to another project."))
    answers = read_all(rows, read_answer)
    block_undo(project)
    return store(source, _find_prompts(project, answers), answers, author, made_by_import).ids


@transaction.atomic
def import_completions(
    project: Project, source_name: str, rows: Iterable[object], *, made_by_import: Import | None = None
) -> list[int]:
    """Add completions as `add_completions` does, by the source with this name, which is created if it is new."""
    source = get_source(project, source_name, Source.Kind.IMPORT)
    return add_completions(project, source, rows, made_by_import=made_by_import)


@transaction.atomic
def add_demonstration(
    membership: Membership, prompt: Prompt, text: str, *, dialogue: Turns | None = None
) -> Demonstration:
    """Store a demonstration by a member. Its author never gets it in a comparison.

    dialogue: the demonstration is this dialogue with `text` as its last turn.
    `feedback.actions.demonstrations` has the other effects of an answer that is written on the ranking page.
    """
    if prompt.project_id != membership.project_id:
        raise Invalid(_("This prompt belongs to another project."))
    text = validation.filled_text(text, _("The answer"))
    turns = None if dialogue is None else with_last_turn(dialogue, text)
    if turns is not None:
        text = validation.text(text_of(turns), _("The answer"))
    _check_amount(membership, text)
    block_undo(membership.project)
    # One source per person, so that results and filters can separate people. The name contains no username.
    source = get_source(membership.project, f"person-{membership.user_id}", Source.Kind.PERSON)
    answer = AnswerRow(prompt.pk, None, text, {}, is_demonstration=True, turns=turns)
    (completion_id,) = store(source, [prompt.pk], [answer], membership.user).ids
    return Demonstration.objects.get(completion_id=completion_id)


def _check_amount(membership: Membership, text: str) -> None:
    """Raise TooManyRequests if the text exceeds the limit per hour, which nobody reaches by typing."""
    recent = Completion.objects.filter(author=membership.user, created_at__gt=timezone.now() - timedelta(hours=1))
    written = recent.aggregate(total=Sum(Length("text")))["total"] or 0
    if written + len(text) > MAX_CHARACTERS_PER_HOUR:
        raise TooManyRequests(
            _("You have stored %(most)s characters of answers within an hour, which is the limit: continue later.")
            % {"most": MAX_CHARACTERS_PER_HOUR}
        )


@dataclass(frozen=True)
class Stored:
    """Ids of stored completions, aligned with the rows, and those that are new."""

    ids: list[int]
    new: set[int]
    demonstrations: int  # new ones


def store(
    source: Source,
    prompt_ids: Sequence[int],
    answers: Sequence[Answered],
    author: User | None = None,
    made_by_import: Import | None = None,
) -> Stored:
    """Store checked answers and skip known ones.

    A completion that a round or a person writes again no longer belongs to the import alone: no undo removes it.
    """
    keys = [(prompt_id, row.digest) for prompt_id, row in zip(prompt_ids, answers, strict=True)]
    shared = [source.pk, author and author.pk, made_by_import and made_by_import.pk, timezone.now()]
    ids: dict[tuple[int, str], int] = {}
    for start in range(0, len(keys), BATCH_SIZE):
        some = slice(start, start + BATCH_SIZE)
        rows = [
            {"p": prompt_id, "t": row.text, "u": row.turns, "d": digest, "s": row.sampling}
            for (prompt_id, digest), row in zip(keys[some], answers[some], strict=True)
        ]
        added = bulk.execute(INSERT, [*shared, bulk.as_json(rows)])
        ids |= {(prompt_id, digest): pk for pk, prompt_id, digest in added}
    new = set(ids.values())
    if missing := {prompt_id for prompt_id, digest in keys if (prompt_id, digest) not in ids}:
        known = bulk.execute(FIND, [source.pk, bulk.as_array(missing)])
        ids |= {(prompt_id, digest): pk for pk, prompt_id, digest in known}
    stored = [ids[key] for key in keys]
    if made_by_import is None:
        Completion.objects.filter(pk__in=set(stored) - new, made_by_import__isnull=False).update(made_by_import=None)
    return Stored(stored, new, _imitate(stored, answers, made_by_import))


def _imitate(stored: list[int], answers: Sequence[Answered], made_by_import: Import | None) -> int:
    """Make demonstrations of the completions that are to be imitated; return the number of new ones."""
    imitated = dict.fromkeys(pk for pk, row in zip(stored, answers, strict=True) if row.is_demonstration)
    if not imitated:
        return 0
    known = Demonstration.objects.filter(completion__in=imitated).count()
    Demonstration.objects.bulk_create(
        [Demonstration(completion_id=pk, made_by_import=made_by_import) for pk in imitated],
        batch_size=BATCH_SIZE,
        ignore_conflicts=True,
    )
    return len(imitated) - known


def _find_prompts(project: Project, rows: list[AnswerRow]) -> list[int]:
    prompts = Prompt.objects.filter(project=project)
    ids = set(prompts.filter(pk__in=[row.prompt_id for row in rows if row.prompt_id]).values_list("pk", flat=True))
    named = ExternalId.objects.filter(project=project, value__in=[row.external_id for row in rows if row.external_id])
    by_external_id: dict[str | None, int] = dict(named.values_list("value", "prompt_id"))
    prompt_ids: list[int] = []
    errors: list[dict[str, Any]] = []
    for line, row in enumerate(rows, start=1):
        prompt_id = by_external_id.get(row.external_id) if row.prompt_id is None else row.prompt_id
        if prompt_id is None or (prompt_id == row.prompt_id and prompt_id not in ids):
            errors.append({"line": line, "message": _("There is no such prompt in this project.")})
        else:
            prompt_ids.append(prompt_id)
    refuse(errors)
    return prompt_ids
