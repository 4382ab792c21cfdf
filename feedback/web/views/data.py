"""Pages of all data of a project, for managers: lists, and single prompts and comparisons."""

from typing import Any

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.template.loader import render_to_string
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET

from feedback.actions import members
from feedback.errors import Invalid
from feedback.models import Membership
from feedback.rendering import render_answer
from feedback.rendering.jinja import translator
from feedback.reports.data import lists, rows
from feedback.web.data_forms import DataForm
from feedback.web.presenters import LETTERS, present_messages


@login_required
@never_cache
@require_GET
def data_list(request: HttpRequest, slug: str, name: str) -> HttpResponse:
    membership = members.manager_of(request.user, slug)
    return _page(request, membership, "list", list_context(request, membership, lists.LISTS[name]))


def list_context(request: HttpRequest, membership: Membership, listed: lists.DataList) -> dict[str, Any]:
    """Return the context of a list: its form, the rows of the page, and the address of the next page."""
    form = DataForm(listed, membership.project, request.GET)
    page = lists.Rows([], "")
    if form.is_valid():
        cursor = request.GET.get("cursor", "")
        try:
            page = lists.read(listed, membership.project, form.filters, sort=form.order, cursor=cursor)
        except Invalid as refusal:
            form.add_error(None, refusal.message)
    query = request.GET.copy()
    query.pop("cursor", None)
    first = query.urlencode()
    if page.next:
        query["cursor"] = page.next
    return {
        "tab": listed.name,
        "table": _render_table(listed, membership, page.rows),
        "filters": form,
        "is_filtered": not form.is_valid() or form.is_filtered,
        "rows": page.rows,
        "first_page": f"?{first}" if "cursor" in request.GET else "",
        "next_page": f"?{query.urlencode()}" if page.next else "",
    }


def _render_table(listed: lists.DataList, membership: Membership, rows: list[Any]) -> str:
    """Render the rows of a list. In Jinja2, because Django's templates took half of the CPU time of a page."""
    context = {"project": membership.project, "rows": rows, "_": translator()}
    return render_to_string(f"data/_{listed.name}.jinja.html", context, using="jinja2")


@login_required
@never_cache
@require_GET
def prompt(request: HttpRequest, slug: str, prompt_id: int) -> HttpResponse:
    membership = members.manager_of(request.user, slug)
    row = rows.prompt_row(membership.project, prompt_id)
    context = {"row": row, "prompt": row.prompt, "prompt_messages": present_messages(row.prompt.messages)}
    return _page(request, membership, "prompt", context)


@login_required
@never_cache
@require_GET
def comparison(request: HttpRequest, slug: str, comparison_id: int) -> HttpResponse:
    """Show a comparison with the sources of its completions and everything that happened to it."""
    membership = members.manager_of(request.user, slug)
    row = rows.comparison_row(membership, comparison_id)
    context = {
        "row": row,
        "comparison": row.comparison,
        "prompt_messages": present_messages(row.comparison.prompt.messages),
        "completions": [
            {
                "letter": LETTERS[item.position],
                "completion": item.completion,
                "html": render_answer(item.completion.answer),
                "text": item.completion.text,
                "gold_rank": row.comparison.gold_ranks[item.position] if row.comparison.gold_ranks else None,
            }
            for item in row.items
        ],
        "events": [
            {"event": event, "order": order_of(event.ranking.ranks) if event.ranking else ""} for event in row.events
        ],
    }
    return _page(request, membership, "comparison", context)


def order_of(ranks: list[int]) -> str:
    """Return ranks by position as an order of letters, such as "B > A = C"."""
    tiers: dict[int, list[str]] = {}
    for position, rank in enumerate(ranks):
        tiers.setdefault(rank, []).append(LETTERS[position])
    return " > ".join(" = ".join(tiers[rank]) for rank in sorted(tiers))


def _page(request: HttpRequest, membership: Membership, page: str, context: dict[str, Any]) -> HttpResponse:
    context = {"project": membership.project, "membership": membership, "page": "data", **context}
    return render(request, f"data/{page}.html", context)
