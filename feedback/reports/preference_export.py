"""An export as a person asks for it: the API and the command both open it here, and so give the same lines."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django.db import connection
from django.utils.translation import gettext as _

from feedback.errors import Invalid
from feedback.export import preferences
from feedback.models import Project, Prompt, ReliabilityReport
from feedback.quality import reliability

VERSION = 1  # of the lines: raise it when a format changes, so that no reader keeps lines of the old one
EVERY_SPLIT = "all"
SPLITS = (*Prompt.Split.values, EVERY_SPLIT)
# Trainers learn from every line of a file of pairs; a line of the other formats names its split.
DEFAULT_SPLITS: dict[str, str] = {"trl": Prompt.Split.TRAIN}
WEIGHTS = ("equal", "reliability")

# What an export says of prompts and can change after a ranking has been read.
PROMPTS_NOW = """
    SELECT count(*), sum(hashtextextended(
        concat_ws('|', coalesce(external_id, ''), "references"::text, metadata::text), id))::text
    FROM feedback_prompt WHERE project_id = %s"""


@dataclass(frozen=True)
class Export:
    """The lines after one cursor, and what a reader needs to ask again."""

    rows: Iterator[dict[str, Any]]
    cursor: int
    report: ReliabilityReport | None  # what weighs the rankings; None: they all count the same
    etag: str  # quoted; the same as long as the lines are


def open_export(
    project: Project,
    format: str,
    *,
    after: int = 0,
    split: str | None = None,
    weights: str | None = None,
    reliability_as_of: int | None = None,
) -> Export:
    """Open the project's preferences as lines of one of `export.FORMATS`.

    split: one of SPLITS; by default the training prompts' in `trl`, else all. weights: one of WEIGHTS; the project's
    setting by default. Raises Invalid if `after` lies beyond the record, NotFound without a report as of that moment.
    """
    until = preferences.sequence_cutoff(project)
    if after > until:
        raise Invalid(
            _('"after" is %(after)s, but the record ends at %(until)s: send a cursor that an export returned.')
            % {"after": after, "until": until}
        )
    split = split or DEFAULT_SPLITS.get(format, EVERY_SPLIT)
    report = _report(project, weights or project.ranking_weights, reliability_as_of)
    rows = preferences.FORMATS[format](
        project,
        after,
        until,
        split=None if split == EVERY_SPLIT else split,
        reliability=reliability.values(report) if report else None,
    )
    etag = etag_of(project.pk, format, after, until, split, report and report.pk, *_prompts_now(project))
    return Export(rows, until, report, etag)


def etag_of(*parts: object) -> str:
    """Return a strong HTTP entity tag, quoted."""
    return f'"{hashlib.sha256(repr((VERSION, *parts)).encode()).hexdigest()[:32]}"'


def _report(project: Project, weights: str, as_of: int | None) -> ReliabilityReport | None:
    """Before the first report nobody is known to differ."""
    if weights == "equal":
        return None
    return reliability.latest(project) if as_of is None else reliability.as_of(project, as_of)


def _prompts_now(project: Project) -> tuple[Any, ...]:
    with connection.cursor() as cursor:
        cursor.execute(PROMPTS_NOW, [project.pk])
        return tuple(cursor.fetchone())
