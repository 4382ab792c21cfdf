"""Page of one completion, for managers: its checkpoint, round and reward model, and everybody who ranked it."""

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET

from feedback.actions import members
from feedback.rendering import render_answer
from feedback.reports.data import rows
from feedback.web.presenters import LETTERS, present_messages
from feedback.web.views.data import order_of
from training import provenance


@login_required
@never_cache
@require_GET
def completion(request: HttpRequest, slug: str, completion_id: int) -> HttpResponse:
    membership = members.manager_of(request.user, slug)
    row = rows.completion_row(membership, completion_id)
    context = {
        "project": membership.project,
        "membership": membership,
        "page": "data",
        "row": row,
        "completion": row.completion,
        "provenance": provenance.provenance_of(row.completion),
        "prompt_messages": present_messages(row.completion.prompt.messages),
        "html": render_answer(row.completion.answer),
        "compared": [
            {
                "entry": entry,
                "letter": LETTERS[entry.position],
                "rankings": [
                    {
                        "ranking": ranking,
                        "rank": ranking.ranks[entry.position],
                        "order": order_of(ranking.ranks),
                    }
                    for ranking in entry.rankings
                ],
            }
            for entry in row.compared
        ],
    }
    return render(request, "data/completion.html", context)
