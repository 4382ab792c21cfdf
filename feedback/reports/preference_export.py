"""Export of a project's rankings, for the API, the page and the command: equal parameters give equal lines."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django.db import connection
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.utils.translation import gettext as _

from feedback.errors import Invalid
from feedback.export import formats, ranking_record
from feedback.export.formats.registry import FORMATS
from feedback.export.json_lines import json_lines
from feedback.models import Project, Prompt, ReliabilityReport
from feedback.models.flags import trainable_flags
from feedback.quality import reliability

VERSION = 4  # of the lines: raise it when a format changes, so that no reader keeps lines of the old one
DEFAULT_FORMAT = "trl"
EVERY_SPLIT = "all"
SPLITS = (*Prompt.Split.values, EVERY_SPLIT)
WEIGHTS = ("equal", "reliability")

# What an export contains of prompts, which can change after a ranking has been read.
PROMPT_STATE = """
    SELECT count(*), sum(hashtextextended(
        concat_ws('|', coalesce(external_id, ''), "references"::text, metadata::text), id))::text
    FROM feedback_prompt WHERE project_id = %s"""


@dataclass(frozen=True)
class Export:
    """The lines after one cursor, and what a reader needs to ask again."""

    format_name: str
    rows: Iterator[dict[str, Any]]
    cursor: int
    report: ReliabilityReport | None  # whose estimates are the weights; None: every ranking weighs 1
    etag: str  # quoted; equal as long as the lines are equal


def export(
    project: Project,
    format_name: str = DEFAULT_FORMAT,
    *,
    after: int = 0,
    until: int | None = None,
    split: str | None = None,
    weights: str | None = None,
    reliability_as_of: int | None = None,
    include_flagged: bool = False,
) -> Export:
    """Export the project's rankings after the cursor `after` as lines of one registered format.

    until: leave out what was recorded after this cursor, so that later rankings and revisions change nothing.
    split: one of SPLITS; the format's default split by default. weights: one of WEIGHTS; the project's setting by
    default. include_flagged: also rankings with a flag that means "not for training". Raises Invalid if `after` is
    beyond the last sequence or the format cannot be read by cursor, NotFound if there is no reliability report as of
    `reliability_as_of`.
    """
    if after and not FORMATS[format_name].has_cursor:
        sentence = _('The format "%(name)s" has no place for retracted rankings: read it from the beginning.')
        raise Invalid(sentence % {"name": format_name})
    end = ranking_record.sequence_cutoff(project)
    for name, cursor in (("after", after), ("until", until or 0)):
        if cursor > end:
            raise Invalid(
                _('"%(name)s" is %(cursor)s, but the record ends at %(end)s: send a cursor that an export returned.')
                % {"name": name, "cursor": cursor, "end": end}
            )
    until = end if until is None else until
    if after > until:
        raise Invalid(
            _('"after" is %(after)s, which is beyond "until" at %(until)s.') % {"after": after, "until": until}
        )
    split = split or FORMATS[format_name].default_split or EVERY_SPLIT
    report = _report(project, weights or project.ranking_weights, reliability_as_of)
    rows = formats.lines(
        project,
        format_name,
        after,
        until,
        split=None if split == EVERY_SPLIT else split,
        reliability=reliability.values(report) if report else None,
        include_flagged=include_flagged,
    )
    flags = None if include_flagged else sorted(trainable_flags(project))
    etag = etag_of(project.pk, format_name, after, until, split, report and report.pk, flags, *_prompt_state(project))
    return Export(format_name, rows, until, report, etag)


def as_response(request: HttpRequest, project: Project, exported: Export) -> HttpResponseBase:
    """Return the export as a download, with its cursor, report and entity tag in the headers."""
    headers = {"Accord-Cursor": str(exported.cursor)}
    if exported.report:
        headers["Accord-Reliability-As-Of"] = str(exported.report.until)
    return json_lines(request, exported.rows, project, f"{exported.format_name}.jsonl", exported.etag, headers)


def count_lines(project: Project) -> dict[str, dict[str, int]]:
    """Return the number of lines that an export of everything has now, by format and split."""
    counts = {name: dict.fromkeys(Prompt.Split.values, 0) for name in formats.registry.names()}
    for split, ranks, count in ranking_record.count_by_ranks(project):
        for name, lines in counts.items():
            lines[split] += count * FORMATS[name].lines(ranks)
    return counts


def etag_of(*parts: object) -> str:
    """Return a strong HTTP entity tag, quoted."""
    return f'"{hashlib.sha256(repr((VERSION, *parts)).encode()).hexdigest()[:32]}"'


def _report(project: Project, weights: str, as_of: int | None) -> ReliabilityReport | None:
    """Return the report whose estimates are the weights; None for equal weights and before the first report."""
    if weights == "equal":
        return None
    return reliability.latest(project) if as_of is None else reliability.stored_report_at(project, as_of)


def _prompt_state(project: Project) -> tuple[Any, ...]:
    with connection.cursor() as cursor:
        cursor.execute(PROMPT_STATE, [project.pk])
        return tuple(cursor.fetchone())
