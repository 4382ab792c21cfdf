"""Export page: contents of each format, the first rows, code that reads it, and the download. For managers."""

import json
from dataclasses import dataclass
from itertools import islice
from typing import Any

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET

from feedback.actions import members
from feedback.errors import Invalid
from feedback.export import ranking_record
from feedback.export.demonstrations import imitable
from feedback.export.formats.registry import FORMATS, names
from feedback.models import Membership, Skip
from feedback.reports import preference_export
from feedback.web.file_forms import ExportForm

PREVIEWED = 3  # rows
EXCERPT = 300  # characters of a text


@dataclass(frozen=True)
class FormatCard:
    """One format as the page shows it."""

    name: str
    line: str  # what one line is
    lines: dict[str, int]  # number of lines by split
    default_split: str | None
    reading: str  # code that reads the file
    command: str  # that downloads it


@login_required
@never_cache
@require_GET
def page(request: HttpRequest, slug: str) -> HttpResponse:
    """Show the form; with a choice in the address, also its first rows."""
    membership = members.manager_of(request.user, slug)
    if "format" not in request.GET:
        return _page(request, membership, ExportForm())
    form = ExportForm(request.GET)
    exported = _export(membership, form)
    if exported is None:
        return _page(request, membership, form, status=400)
    return _page(request, membership, form, preview=_preview(exported))


@login_required
@require_GET
def download(request: HttpRequest, slug: str) -> HttpResponseBase:
    """Stream the chosen export, or show the page with the form's errors."""
    membership = members.manager_of(request.user, slug)
    form = ExportForm(request.GET)
    exported = _export(membership, form)
    if exported is None:
        return _page(request, membership, form, status=400)
    return preference_export.as_response(request, membership.project, exported)


def _export(membership: Membership, form: ExportForm) -> preference_export.Export | None:
    """Return the chosen export; None if the choice is invalid, which the form then says."""
    if not form.is_valid():
        return None
    wanted = {name: value for name, value in form.cleaned_data.items() if value not in ("", None)}
    try:
        return preference_export.export(membership.project, **preference_export.choices_of(wanted))
    except Invalid as refusal:
        form.add_error(None, refusal.message)
        return None


def _preview(exported: preference_export.Export) -> list[str]:
    """Return the first rows as indented JSON, with long texts shortened."""
    rows = islice(exported.rows, PREVIEWED)
    return [json.dumps(_shortened(row), ensure_ascii=False, indent=2) for row in rows]


def _shortened(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _shortened(of) for name, of in value.items()}
    if isinstance(value, list):
        return [_shortened(of) for of in value]
    return f"{value[:EXCERPT]}…" if isinstance(value, str) and len(value) > EXCERPT else value


def _page(
    request: HttpRequest,
    membership: Membership,
    form: ExportForm,
    *,
    preview: list[str] | None = None,
    status: int = 200,
) -> HttpResponse:
    project = membership.project
    context = {
        "preview": preview,
        "tab": "exports",
        "project": project,
        "membership": membership,
        "page": "export",
        "form": form,
        "cards": _cards(request, membership),
        "cursor": ranking_record.sequence_cutoff(project),
        "demonstrations": imitable(project).count(),
        "skips": Skip.objects.filter(comparison__project=project).count(),
    }
    return render(request, "project/export.html", context, status=status)


def _cards(request: HttpRequest, membership: Membership) -> list[FormatCard]:
    project = membership.project
    address = request.build_absolute_uri(reverse("api-preferences", args=[project.slug]))
    lines = preference_export.count_lines(project)
    cards = []
    for name in names():
        file = f"{project.slug}-{name}.jsonl"
        cards.append(
            FormatCard(
                name,
                str(FORMATS[name].line).replace("`", ""),
                lines[name],
                FORMATS[name].default_split,
                FORMATS[name].reading.replace("{file}", file),
                f'curl -H "Authorization: Bearer $TOKEN" "{address}?format={name}" > {file}',
            )
        )
    return cards
