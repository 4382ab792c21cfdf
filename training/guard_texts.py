"""Guard texts of a project: writes, and the reading of files."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from django.db import transaction
from django.utils.translation import gettext as _

from feedback import audit
from feedback.errors import Invalid
from feedback.models import Project, User
from training.models import GuardText

MAX_TEXTS = 10_000  # of a project: every round reads them all


class Added(NamedTuple):
    """Numbers of texts that were new, and that the project had already."""

    new: int
    known: int


@transaction.atomic
def add(project: Project, texts: Iterable[str], actor: User | None) -> Added:
    """Add texts to the project's guard texts, each once. Raise Invalid, and add none, for one that cannot be used."""
    Project.objects.select_for_update(no_key=True).get(pk=project.pk)
    by_digest = {hashlib.sha256(text.encode()).hexdigest(): text for text in map(_checked, texts)}
    if not by_digest:
        raise Invalid(_("There is no text to add."))
    existing = GuardText.objects.filter(project=project)
    known = set(existing.filter(digest__in=by_digest).values_list("digest", flat=True))
    new = {digest: text for digest, text in by_digest.items() if digest not in known}
    if existing.count() + len(new) > MAX_TEXTS:
        raise Invalid(_("A project can have at most %(most)s guard texts: remove some first.") % {"most": MAX_TEXTS})
    GuardText.objects.bulk_create(
        [GuardText(project=project, text=text, digest=digest, added_by=actor) for digest, text in new.items()]
    )
    if new:
        audit.record("guard_texts.add", project, project, after={"added": len(new)}, actor=actor)
    return Added(len(new), len(known))


def _checked(text: str) -> str:
    """Return the text. Raise Invalid if it is empty, too long, or cannot be stored."""
    if not isinstance(text, str) or not text.strip():
        raise Invalid(_("A guard text is empty: remove it from the file."))
    if len(text) > GuardText.MAX_LENGTH:
        raise Invalid(
            _("A guard text has %(n)s characters, and at most %(most)s are allowed: divide it.")
            % {"n": len(text), "most": GuardText.MAX_LENGTH}
        )
    if "\0" in text:
        raise Invalid(_("A guard text contains a NUL character, which the database cannot store."))
    return text


@transaction.atomic
def remove_all(project: Project) -> int:
    """Remove all guard texts of the project and return their number. Later rounds do not measure them."""
    number, _by_model = GuardText.objects.filter(project=project).delete()
    audit.record("guard_texts.remove", project, project, before={"texts": number})
    return number


def texts_in(name: str, content: bytes) -> list[str]:
    """Return the texts of a file: lines {"text": "..."} of JSON Lines, else the whole file. Raise Invalid."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        raise Invalid(_("%(file)s is not UTF-8.") % {"file": name}) from None
    return list(_json_lines(name, text)) if name.endswith((".jsonl", ".json")) else [text]


def _json_lines(name: str, content: str) -> Iterator[str]:
    for number, line in enumerate(content.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict) or not isinstance(row.get("text"), str):
            raise Invalid(
                _('%(file)s, line %(line)s: a line must be an object such as {"text": "..."}.')
                % {"file": name, "line": number}
            )
        yield row["text"]


def texts_at(path: Path) -> list[str]:
    """Return the texts of a file, or of all .txt, .md and .jsonl files of a folder. Raise Invalid if it has none."""
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    wanted = [file for file in files if file.is_file() and (file == path or file.suffix in (".txt", ".md", ".jsonl"))]
    if not wanted:
        raise Invalid(_("%(path)s has no file of texts (.txt, .md or .jsonl).") % {"path": path})
    return [text for file in wanted for text in texts_in(str(file), file.read_bytes())]
