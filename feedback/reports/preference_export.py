"""Export of a project's rankings, for the API, the page and the command: equal parameters give equal lines."""

import hashlib
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.utils.translation import gettext as _

from feedback.errors import Invalid
from feedback.export import composed, formats, ranking_record
from feedback.export.files import GZIP, MEDIA_TYPES, encoded, gzipped
from feedback.export.formats.registry import FORMATS
from feedback.export.reader import TIES as TIES
from feedback.export.responses import download
from feedback.export.schema import RETRACTED, Schema, completed
from feedback.models import Project, Prompt, PromptChanges, ReliabilityReport
from feedback.models.flags import trainable_flags
from feedback.quality import reliability
from feedback.reports.export_filters import Filters

VERSION = 5  # of the lines: raise it when a format changes, so that no reader keeps lines of the old one
DEFAULT_FORMAT = "trl"
EVERY_SPLIT = "all"
SPLITS = (*Prompt.Split.values, EVERY_SPLIT)
WEIGHTS = ("equal", "reliability", "resample")
NO_FILTERS = Filters()
FILTERS = tuple(field.name for field in fields(Filters))


@dataclass(frozen=True)
class Export:
    """The lines after one cursor, and what a reader needs to ask again."""

    format_name: str
    rows: Iterator[dict[str, Any]]
    cursor: int
    report: ReliabilityReport | None  # whose estimates are the weights; None: every ranking weighs 1
    etag: str  # quoted; equal as long as the file is equal
    kind: str = "jsonl"  # one of `files.KINDS`
    compressed: bool = False
    composed: Iterator[bytes] | None = None  # the file before compression, if PostgreSQL composes it

    @property
    def file_name(self) -> str:
        return f"{self.format_name}.{self.kind}{'.gz' if self.compressed else ''}"

    @property
    def media_type(self) -> str:
        return GZIP if self.compressed else MEDIA_TYPES[self.kind]

    def content(self) -> Iterator[bytes]:
        """Return the file. It can be read once, as the rows can."""
        if self.composed is not None:
            return gzipped(self.composed) if self.compressed else self.composed
        return encoded(self.rows, self.kind, _columns(self.format_name), compressed=self.compressed)


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
    ties: str | None = None,
    aggregated: bool = False,
    filters: Filters = NO_FILTERS,
    file: str = "jsonl",
    gzip: bool = False,
) -> Export:
    """Export the project's rankings after the cursor `after` as lines of one registered format.

    until: leave out what was recorded after this cursor, so that later rankings and revisions change nothing.
    split: one of SPLITS; the format's default split by default. weights: one of WEIGHTS; the project's setting by
    default; "resample" repeats rankings by their reliability instead of weighting them. include_flagged: also rankings
    with a flag that means "not for training". ties: one of TIES; the format's default by default. aggregated: one
    ranking a comparison. file: one of `files.KINDS`. Raises Invalid if `after` is beyond the last sequence or the
    choices exclude one another, NotFound if there is no reliability report as of `reliability_as_of`.
    """
    end = ranking_record.sequence_cutoff(project)
    until = _checked_range(after, until, end)
    _check_file(format_name, file, gzip=gzip)
    _check_choices(format_name, after, weights, reliability_as_of, ties, filters, aggregated=aggregated)
    split = split or FORMATS[format_name].default_split or EVERY_SPLIT
    weights = weights or project.ranking_weights
    report = _report(project, reliability_as_of, until) if _needs_report(weights, filters) else None
    values = reliability.values(report) if report else None
    choice: dict[str, Any] = {
        "split": None if split == EVERY_SPLIT else split,
        "where": filters.condition(project, until, values),
        "reliability": None if weights == "equal" else values,
        "include_flagged": include_flagged,
    }
    is_resampled = weights == "resample"
    rows = formats.lines(
        project, format_name, after, until, ties=ties, aggregated=aggregated, resampled=is_resampled, **choice
    )
    lines = None
    if format_name in composed.STATEMENTS and file == "jsonl" and not (after or ties or aggregated or is_resampled):
        lines = composed.composed(project, format_name, until, **choice)
    flags = None if include_flagged else sorted(trainable_flags(project))
    choices = (format_name, after, until, split, report and (weights, report.pk), flags, ties, aggregated, filters)
    etag = etag_of(project.pk, *choices, is_resampled, file, gzip, _changes_of_prompts(project))
    schema = FORMATS[format_name].schema
    if schema is not None and (after or file != "jsonl"):
        # A column that begins with the first retracted row would have no type before it.
        rows = (completed(row, schema) for row in rows)
    return Export(format_name, rows, until, report, etag, file, gzip, lines)


def _columns(format_name: str) -> Schema | None:
    schema = FORMATS[format_name].schema
    return schema if schema is None else {**schema, RETRACTED: "text"}


def _check_file(format_name: str, kind: str, *, gzip: bool) -> None:
    """Raise Invalid if the format cannot be written as this kind of file."""
    if kind not in FORMATS[format_name].kinds:
        sentence = _('The format "%(name)s" cannot be written as %(kind)s; these can: %(others)s.')
        others = ", ".join(name for name in formats.registry.names() if kind in FORMATS[name].kinds)
        raise Invalid(sentence % {"name": format_name, "kind": kind, "others": others})
    if gzip and kind == "parquet":
        raise Invalid(_("Parquet is compressed already: leave out gzip."))


def choices_of(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of `export` from a flat form: the names of a query, a form or a command line."""
    choices = {name: value for name, value in options.items() if name not in FILTERS}
    choices["format_name"] = choices.pop("format")
    filters = {name: options[name] for name in FILTERS if options.get(name) not in (None, "")}
    return choices | {"filters": Filters(**filters)}


def _checked_range(after: int, until: int | None, end: int) -> int:
    """Return the end of the range of cursors. Raises Invalid."""
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
    return until


def _check_choices(
    format_name: str,
    after: int,
    weights: str | None,
    reliability_as_of: int | None,
    ties: str | None,
    filters: Filters,
    *,
    aggregated: bool,
) -> None:
    """Raise Invalid for choices that exclude one another."""
    chosen = FORMATS[format_name]
    if ties is not None and ties not in chosen.ties:
        raise Invalid(_('The format "%(name)s" cannot express ties: leave them out.') % {"name": format_name})
    if not after:
        return
    if not chosen.has_cursor:
        sentence = _('The format "%(name)s" has no place for retracted rankings: read it from the beginning.')
        raise Invalid(sentence % {"name": format_name})
    if aggregated or filters.min_agreement is not None or weights == "resample":
        raise Invalid(
            _("Aggregated and resampled rankings and a least agreement have no cursor: read them from the beginning.")
        )
    if filters.min_reliability is not None and reliability_as_of is None:
        raise Invalid(
            _('With a cursor, a least reliability needs "reliability_as_of": other reports choose other annotators.')
        )


def _needs_report(weights: str, filters: Filters) -> bool:
    return weights != "equal" or filters.min_reliability is not None


def as_response(request: HttpRequest, project: Project, exported: Export) -> HttpResponseBase:
    """Return the export as a download, with its cursor, report and entity tag in the headers."""
    headers = {"Accord-Cursor": str(exported.cursor)}
    if exported.report:
        headers["Accord-Reliability-As-Of"] = str(exported.report.until)
    if request.method == "HEAD" and "sha-256" in request.headers.get("Want-Repr-Digest", ""):
        headers["Repr-Digest"] = f"sha-256=:{b64encode(sha256_of(exported.content())).decode()}:"
    return download(
        request, exported.content(), project, exported.file_name, exported.media_type, exported.etag, headers
    )


def sha256_of(content: Iterable[bytes]) -> bytes:
    digest = hashlib.sha256()
    for chunk in content:
        digest.update(chunk)
    return digest.digest()


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


def _report(project: Project, as_of: int | None, until: int) -> ReliabilityReport | None:
    """Return the report of the weights: the latest one of the record up to `until`; None before the first report."""
    if as_of is not None:
        return reliability.stored_report_at(project, as_of)
    return reliability.latest(project, until)


def _changes_of_prompts(project: Project) -> int:
    """Return a number that changes with what an export contains of prompts."""
    return PromptChanges.objects.filter(project=project).values_list("count", flat=True).first() or 0
