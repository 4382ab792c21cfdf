"""The ranking page and its requests. The response to a script (htmx header) is a fragment."""

from collections.abc import Callable, Collection
from functools import wraps
from typing import Any
from uuid import UUID

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.template.loader import render_to_string
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_POST

from feedback.actions import demonstrations, members, ranking_undo, rankings
from feedback.archive import Archived
from feedback.models import Lease, Membership
from feedback.queue import leases
from feedback.rendering import render as render_markdown
from feedback.rendering.jinja import translator
from feedback.reports import progress, routing
from feedback.web.forms import (
    DemonstrationForm,
    LeasedRankingForm,
    LeaseForm,
    RankingForm,
    SkipForm,
    checked,
    read_leases,
)
from feedback.web.presenters import Card, card_of_lease, present_answer, present_flags, sample_card

View = Callable[..., HttpResponse]


def require_same_user(view: View) -> View:
    """Answer 401 if another user has signed in in this browser since the page was opened.

    The page then keeps its unsent rankings: otherwise they would be recorded in the name of the other user.
    """

    @wraps(view)
    def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        if request.headers.get("Accord-User", str(request.user.pk)) != str(request.user.pk):
            return HttpResponse(_("Another user is signed in now: sign in again."), status=401)
        return view(request, *args, **kwargs)

    return guarded


@login_required
@never_cache
@require_GET
def rank(request: HttpRequest, slug: str) -> HttpResponse:
    membership = members.membership_of(request.user, slug)
    lease = _next_lease(membership)
    card = card_of_lease(lease, membership) if lease else None
    return _show_page(request, membership, card)


@login_required
@require_GET
def tour(request: HttpRequest, slug: str) -> HttpResponse:
    """Show the practice page with a sample comparison."""
    membership = members.membership_of(request.user, slug)
    context = _context(membership) | {"card": _render_card(request, membership, sample_card())}
    return render(request, "rank/tour.html", context | {"page": "rank", "words": words()})


@login_required
@never_cache
@require_GET
@require_same_user
def next_comparison(request: HttpRequest, slug: str) -> HttpResponse:
    """Lease one more comparison beside those that the page holds, to fetch ahead."""
    membership = members.membership_of(request.user, slug)
    return _next_card(request, membership, read_leases(request.GET))


@login_required
@require_POST
@require_same_user
def submit(request: HttpRequest, slug: str) -> HttpResponse:
    membership = members.membership_of(request.user, slug)
    form = LeasedRankingForm(request.POST)
    cleaned = checked(form)
    if not _wants_next(request):
        rankings.record_ranking(membership, cleaned["lease"], cleaned["ranks"], **form.key_and_time, **form.details)
        return _respond(request, membership)
    held = read_leases(request.POST)
    _ranking, lease = rankings.record_ranking_and_lease(
        membership, cleaned["lease"], cleaned["ranks"], beside=held, **form.key_and_time, **form.details
    )
    return _card_response(request, membership, lease or leases.lease_next_after_write(membership, beside=held))


@login_required
@require_POST
@require_same_user
def skip(request: HttpRequest, slug: str) -> HttpResponse:
    membership = members.membership_of(request.user, slug)
    form = checked(SkipForm(request.POST))
    rankings.skip_comparison(membership, form["lease"], reason=form["reason"])
    return _respond(request, membership)


@login_required
@require_POST
@require_same_user
def revise(request: HttpRequest, slug: str, ranking_id: int) -> HttpResponse:
    """Correct a ranking that counts. No page sends this any more, but a browser may have kept an unsent correction."""
    membership = members.membership_of(request.user, slug)
    form = RankingForm(request.POST)
    rankings.revise_ranking(membership, ranking_id, checked(form)["ranks"], **form.key_and_time, **form.details)
    return _respond(request, membership)


@login_required
@require_POST
@require_same_user
def undo(request: HttpRequest, slug: str) -> HttpResponse:
    """Withdraw the user's last ranking, skip or answer, and show it as they left it."""
    membership = members.membership_of(request.user, slug)
    if answer := demonstrations.withdraw_if_last(membership):
        if request.headers.get("HX-Request"):
            return JsonResponse(present_answer(membership, answer))
        return redirect("rank", slug)
    card = card_of_lease(ranking_undo.undo_last(membership), membership)
    if request.headers.get("HX-Request"):
        return HttpResponse(_render_card(request, membership, card))
    return _show_page(request, membership, card)


@login_required
@require_POST
@require_same_user
def demonstrate(request: HttpRequest, slug: str) -> HttpResponse:
    """Store a demonstration: an answer that the annotator wrote, or edited from a completion."""
    membership = members.membership_of(request.user, slug)
    form = checked(DemonstrationForm(request.POST))
    demonstrations.record_demonstration(membership, form["comparison"], form["text"], place=form["place"])
    return HttpResponse(status=204)


@login_required
@require_POST
@require_same_user
def renew(request: HttpRequest, slug: str) -> HttpResponse:
    membership = members.membership_of(request.user, slug)
    leases.renew(membership, checked(LeaseForm(request.POST))["lease"])
    return HttpResponse(status=204)


def _respond(request: HttpRequest, membership: Membership) -> HttpResponse:
    """Return the next comparison if a script wants one; redirect a page without JavaScript to it."""
    if not request.headers.get("HX-Request"):
        return redirect("rank", membership.project.slug)
    if not _wants_next(request):
        return HttpResponse()
    lease = leases.lease_next_after_write(membership, beside=read_leases(request.POST))
    return _card_response(request, membership, lease)


def _wants_next(request: HttpRequest) -> bool:
    """Return whether a script sent the request and wants another comparison in the response."""
    return bool(request.headers.get("HX-Request")) and request.POST.get("want") != "0"


def _next_card(request: HttpRequest, membership: Membership, held: list[Any]) -> HttpResponse:
    return _card_response(request, membership, _next_lease(membership, held))


def _next_lease(membership: Membership, held: Collection[UUID] = ()) -> Lease | None:
    """Return None if there is nothing to rank, or the project is archived."""
    try:
        return leases.lease_next(membership, beside=held)
    except Archived:
        return None


def _card_response(request: HttpRequest, membership: Membership, lease: Lease | None) -> HttpResponse:
    if lease is None:
        context = _context(membership) | _nothing(membership)
        return render(request, "rank/_nothing.html", context)
    return HttpResponse(_render_card(request, membership, card_of_lease(lease, membership)))


def _render_card(request: HttpRequest, membership: Membership, card: Card) -> str:
    context = {"project": membership.project, "card": card, "_": translator()}
    return render_to_string("rank/_card.jinja.html", context, request, using="jinja2")


def _show_page(request: HttpRequest, membership: Membership, card: Card | None) -> HttpResponse:
    context = _context(membership) | {
        "card": _render_card(request, membership, card) if card else "",
        "page": "rank",
        "guidelines": render_markdown(membership.project.guidelines),
        "words": words(),
        "flags": present_flags(membership.project),
        **({"counts": progress.counts(membership)} if card else _nothing(membership)),
    }
    return render(request, "rank/page.html", context)


def _nothing(membership: Membership) -> dict[str, Any]:
    """Return what `rank/_nothing.html` needs."""
    return {"counts": progress.counts(membership), "reason": routing.reason_for_nothing(membership)}


def _context(membership: Membership) -> dict[str, Any]:
    return {"project": membership.project, "membership": membership}


def words() -> dict[str, str]:
    """Return the texts that the page's scripts show. The scripts fill in the words in braces."""
    return {
        "ranked": _("Completion {letter}, rank {rank}"),
        "unranked": _("Completion {letter}, not ranked yet"),
        "missing": _("Not ranked yet: {letters}"),
        "complete": _("All ranked"),
        "loading": _("Fetching the next comparison…"),
        "offline": _("No connection. Waiting to be sent: {count}"),
        "server": _("The server does not answer. Waiting to be sent: {count}"),
        "signed-out": _("You are signed out: sign in in another tab. Waiting to be sent: {count}"),
        "stored": _("Stored. U undoes it."),
        "skipped": _("Skipped. U undoes it."),
        "not-stored": _("Not stored: see the message at the top."),
        "sign-in": _("You are signed out. Sign in in another tab, and go on here."),
        "elsewhere": _("You ranked this one in another tab. Here is the next."),
        "undone": _("Undone. Submit it when it is right."),
        "undo-offline": _("Undo needs a connection."),
        "answer-undone": _("Undone: your answer is a draft again."),
        "nothing-to-undo": _("Nothing to undo: undo reaches your last ten rankings of the past 24 hours."),
        "from-nothing": _("an empty page"),
        "write-over": _("Replace what you have written?"),
        "unchanged": _("Change the text first: it is still the same as the completion."),
        "keep-first": _("Store or close your own answer first."),
        "not-as-written": _("Text can be marked only in the rendered view: press I first."),
        "not-in-differences": _("Text can be marked only in the rendered view: press D first."),
        "too-long-to-compare": _("Too long to show differences."),
        "marking": _("Arrows choose a word, with Shift more; + is good, − is bad, Escape ends."),
        "marked-good": _("Good: {text}."),
        "marked-bad": _("Bad: {text}."),
        "unmark": _("Remove the mark"),
        "thanks": _("Your answer is stored: the model learns from it. U undoes it."),
        "lost": _(
            "Your time for this one ran out, and others may rank it now. "
            "You can still submit it: it counts if a ranking is still needed."
        ),
    }
