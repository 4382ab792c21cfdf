"""Pages of imports: upload a file, look at its first rows as they are mapped, start it, follow it. For managers."""

import json
from dataclasses import dataclass
from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_POST

from feedback import imports
from feedback.actions import members
from feedback.errors import AccordError, Invalid
from feedback.imports import maps, uploads
from feedback.imports.loading import errors_as_csv, errors_as_lines, preview
from feedback.imports.maps.description import Map, read_toml, to_toml
from feedback.imports.maps.draft import MappedRow
from feedback.imports.stream import first_rows, unused_columns
from feedback.models import Import, Membership
from feedback.web.file_forms import ImportFileForm, ImportMapForm, ImportOptionsForm
from feedback.web.forms import checked

MAX_LISTED = 20  # imports
MAX_ERRORS = 50  # on the page; the report that can be downloaded has more
PREVIEWED = 5  # rows
EXCERPT = 400  # characters of a text


@dataclass(frozen=True)
class PreviewedRow:
    """A row as it will be imported, or why it will not."""

    line: int
    error: str
    prompt: str
    completions: list[dict[str, Any]]  # text, source, rank (None: nobody has ranked it)
    judge: str
    is_skip: bool
    is_gold: bool


@login_required
def page(request: HttpRequest, slug: str) -> HttpResponse:
    """List the imports, and accept a file, whose draft is looked at next."""
    membership = members.manager_of(request.user, slug)
    form = ImportFileForm(request.POST or None, request.FILES or None)
    if request.method == "POST" and form.is_valid():
        file = form.cleaned_data["file"]
        try:
            record = uploads.add_upload(
                membership.project,
                file.name or "",
                file.chunks(),
                how=str(Import.How.PAGE),
                actor=membership.user,
            )
            return redirect("import", slug, record.pk)
        except Invalid as refusal:
            form.add_error("file", refusal.message)
    context = {"form": form, "imports": imports.last_imports(membership.project, MAX_LISTED), "tab": "imports"}
    return _page(request, membership, "imports", context)


@login_required
@never_cache
@require_GET
def detail(request: HttpRequest, slug: str, import_id: int) -> HttpResponse:
    """Show a draft's first rows, the progress of an import, or its report."""
    membership = members.manager_of(request.user, slug)
    record = imports.find_import(membership.project, import_id)
    is_active = record.state in (Import.State.WAITING, Import.State.RUNNING)
    if request.headers.get("HX-Request"):
        response = render(request, "project/_import_progress.html", {"project": membership.project, "import": record})
        if not is_active:
            response["HX-Refresh"] = "true"
        return response
    context: dict[str, Any] = {"import": record, "is_active": is_active, "tab": "imports"}
    if record.state == Import.State.DRAFT:
        made = uploads.map_of(record)
        context |= _preview(record, made) | {
            "map_form": ImportMapForm(initial=_initial(made)),
            "options_form": ImportOptionsForm(),
        }
    else:
        context["errors"] = record.report.get("errors", [])[:MAX_ERRORS]
    return _page(request, membership, "import", context)


@login_required
@require_POST
def choose_map(request: HttpRequest, slug: str, import_id: int) -> HttpResponse:
    """Read a draft through another map, or through one with other columns."""
    membership = members.manager_of(request.user, slug)
    record = imports.find_import(membership.project, import_id)
    form = ImportMapForm(request.POST)
    if form.is_valid():
        try:
            values = form.cleaned_data
            made = read_toml(values["columns"]) if "own" in request.POST else maps.find(values["map"])
            uploads.choose_map(record, made)
            return redirect("import", slug, import_id)
        except Invalid as refusal:
            form.add_error("columns" if "own" in request.POST else "map", refusal.message)
    context = _preview(record, uploads.map_of(record)) | {"map_form": form, "options_form": ImportOptionsForm()}
    return _page(request, membership, "import", {"import": record, "tab": "imports", **context})


@login_required
@require_POST
def start(request: HttpRequest, slug: str, import_id: int) -> HttpResponse:
    membership = members.manager_of(request.user, slug)
    record = imports.find_import(membership.project, import_id)
    options = checked(ImportOptionsForm(request.POST))
    try:
        uploads.start(record, **options)
    except AccordError as refusal:
        messages.error(request, refusal.message)
    return redirect("import", slug, import_id)


@login_required
@require_POST
def stop(request: HttpRequest, slug: str, import_id: int) -> HttpResponse:
    """Delete a draft, or stop an import."""
    membership = members.manager_of(request.user, slug)
    record = imports.find_import(membership.project, import_id)
    was_draft = record.state == Import.State.DRAFT
    uploads.stop(record)
    return redirect("imports", slug) if was_draft else redirect("import", slug, import_id)


@login_required
@require_GET
def report(request: HttpRequest, slug: str, import_id: int) -> HttpResponse:
    """Return the report as a file; with `rows=csv` or `rows=jsonl` the rows that were left out."""
    membership = members.manager_of(request.user, slug)
    record = imports.find_import(membership.project, import_id)
    name = f"import-{record.pk}"
    if (wanted := request.GET.get("rows")) in ("csv", "jsonl"):
        name = f"{name}-errors.{wanted}"
        content = errors_as_csv(record) if wanted == "csv" else errors_as_lines(record)
        kind = "text/csv" if wanted == "csv" else "application/x-ndjson"
        response = HttpResponse(content, content_type=f"{kind}; charset=utf-8")
    else:
        about = {"import_id": record.pk, "file": record.file_name, "map": record.map.get("name", "")}
        name = f"{name}.json"
        response = JsonResponse(about | record.report)
    response["Content-Disposition"] = f'attachment; filename="{name}"'
    return response


def _preview(record: Import, made: Map | None) -> dict[str, Any]:
    """Return the first rows as the map reads them; without a map, as they are."""
    file = uploads.file_of(record)
    rows = first_rows(file)
    if made is None:
        return {"raw": [json.dumps(row, ensure_ascii=False)[:EXCERPT] for row in rows[:PREVIEWED]]}
    previewed: list[PreviewedRow] = []
    for unit in preview(file, made, PREVIEWED):
        if unit.error:
            previewed.append(PreviewedRow(unit.lines[0], unit.error.reason, "", [], "", False, False))
        previewed += (_previewed(unit.lines[0], row) for row in unit.rows if not row.passed_over)
    return {"map": made, "rows": previewed[: 2 * PREVIEWED], "unused": unused_columns(rows, made)}


def _previewed(line: int, row: MappedRow) -> PreviewedRow:
    judgement = row.judgement
    ranks: list[Any] = judgement.ranks if judgement and judgement.ranks else [None] * len(row.prompt.completions)
    completions = [
        {"text": _excerpt(one.text), "source": one.source, "rank": rank, "is_demonstration": one.is_demonstration}
        for one, rank in zip(row.prompt.completions, ranks, strict=True)
    ]
    return PreviewedRow(
        line,
        "",
        _excerpt(row.prompt.messages[-1]["content"]),
        completions,
        "" if judgement is None else judgement.judge,
        judgement is not None and judgement.is_skip,
        judgement is not None and judgement.is_gold,
    )


def _excerpt(text: str) -> str:
    return text if len(text) <= EXCERPT else f"{text[:EXCERPT]}…"


def _initial(made: Map | None) -> dict[str, str]:
    if made is None:
        return {"columns": 'name = "own"\ntitle = "…"\n\n[prompt]\ntext = ""\n\n[completions]\ncolumns = ["", ""]\n'}
    return {"map": made.name, "columns": to_toml(made)}


def _page(request: HttpRequest, membership: Membership, name: str, context: dict[str, Any]) -> HttpResponse:
    context = {"project": membership.project, "membership": membership, "page": "data", "tab": "imports", **context}
    return render(request, f"project/{name}.html", context)
