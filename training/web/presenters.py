"""Parts that several pages of the console share."""

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from feedback.errors import AccordError
from feedback.models import Completion, Membership, Project
from feedback.rendering import render_answer
from training.rounds.start import check_can_start


def render_page(request: HttpRequest, membership: Membership, page: str, context: dict[str, Any]) -> HttpResponse:
    """Render a page of the console, `console/<page>.html`, for this manager. `tab` of the context: see `_tabs.html`."""
    context = {"project": membership.project, "membership": membership, "page": "console", **context}
    return render(request, f"console/{page}.html", context)


def side_of(completion: Completion, score: float | None = None) -> dict[str, Any]:
    """Return the context of one side of a pair of completions; `console/_answer.html` shows it."""
    return {"html": render_answer(completion.answer), "text": completion.text, "score": score}


def reason_not_to_start(project: Project, learns: bool, recipe: str | None = None) -> str:
    """Return the message why no round can start now, or ""."""
    try:
        check_can_start(project, learns, recipe)
    except AccordError as refusal:
        return refusal.message
    return ""
