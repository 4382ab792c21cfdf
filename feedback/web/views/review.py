"""Review: disagreements one after the other, one person's work, and what was decided. For reviewers and managers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_POST

from feedback.actions import members, review_undo, reviews
from feedback.models import Membership, Review
from feedback.rendering import render as render_markdown
from feedback.reports import review_cases, statistics
from feedback.web.forms import AdjudicationForm, DiscardSinceForm, RankingReviewForm, SinceForm, checked
from feedback.web.presenters import LETTERS, show_messages

ROWS_A_PAGE = 25


@dataclass(frozen=True)
class ShownOpinion:
    """One person's ranking beside the others."""

    opinion: review_cases.Opinion
    name: str
    cells: list[tuple[int, bool]]  # rank of each completion, and whether others put it elsewhere


@login_required
@never_cache
@require_GET
def disagreements(request: HttpRequest, slug: str) -> HttpResponse:
    membership = members.reviewer_of(request.user, slug)
    return _listed(request, membership, "disagreements", review_cases.disagreements(membership.project))


@login_required
@never_cache
@require_GET
def persons(request: HttpRequest, slug: str) -> HttpResponse:
    """Those first whose work shows a sign of carelessness."""
    membership = members.reviewer_of(request.user, slug)
    everybody = statistics.of_everybody(membership.project)
    shown = {"persons": statistics.to_look_at(everybody), "counted": everybody[0], "tab": "people"}
    return _page(request, membership, "people", shown)


@login_required
@never_cache
@require_GET
def decisions(request: HttpRequest, slug: str) -> HttpResponse:
    membership = members.reviewer_of(request.user, slug)
    return _listed(request, membership, "decisions", review_cases.decisions(membership.project))


@login_required
@never_cache
@require_GET
def case(request: HttpRequest, slug: str, comparison_id: int) -> HttpResponse:
    """One comparison; `?of=<user id>` goes on through that person's work, else through the disagreements."""
    membership = members.reviewer_of(request.user, slug)
    found = review_cases.case(membership, comparison_id)
    of = _person_of(request, membership)
    neighbours = (
        review_cases.beside_in_work(membership.project, of.pk, found.comparison)
        if of
        else review_cases.beside(found.comparison)
    )
    can_decide = not membership.project.archived_at and any(each.can_be_changed for each in found.opinions)
    shown = {
        "case": found,
        "of": of,
        "neighbours": neighbours,
        "query": f"?of={of.pk}" if of else "",
        "acts": _acts(slug) if can_decide else [],
        "gold": [found.comparison.gold_ranks[position] for position in found.display_order]
        if found.comparison.gold_ranks
        else [],
        "key": uuid4(),
        "messages_shown": show_messages(found.comparison.prompt.messages),
        "completions": _completions(found),
        "opinions": _opinions(found),
        "contests": [
            {"first": LETTERS[each.first], "second": LETTERS[each.second], "contest": each} for each in found.contests
        ],
        "words": _words(),
    }
    return _page(request, membership, "case", shown)


@login_required
@require_POST
def adjudicate(request: HttpRequest, slug: str, comparison_id: int) -> HttpResponse:
    membership = members.reviewer_of(request.user, slug)
    form = AdjudicationForm(request.POST)
    given = checked(form)
    after = _after(request, membership, comparison_id)
    reviews.adjudicate(
        membership, comparison_id, given["ranks"], reason=given["reason"], **form.measured, **form.details
    )
    messages.success(request, _("Settled: your ranking is the one that counts."))
    return redirect(after)


@login_required
@require_POST
def return_ranking(request: HttpRequest, slug: str) -> HttpResponse:
    return _judge_ranking(request, slug, reviews.return_ranking, _("Returned: its annotator gets it before new work."))


@login_required
@require_POST
def discard(request: HttpRequest, slug: str) -> HttpResponse:
    return _judge_ranking(request, slug, reviews.discard, _("Discarded: somebody else will be asked."))


def _judge_ranking(request: HttpRequest, slug: str, decide: Callable[..., Review], told: str) -> HttpResponse:
    membership = members.reviewer_of(request.user, slug)
    given = checked(RankingReviewForm(request.POST))
    decision = decide(membership, given["ranking"], reason=given["reason"])
    messages.success(request, told)
    return redirect(_here(request, slug, decision.comparison_id))


@login_required
@require_POST
def undo(request: HttpRequest, slug: str, decision_id: int) -> HttpResponse:
    membership = members.reviewer_of(request.user, slug)
    decision = review_undo.undo(membership, decision_id)
    messages.success(request, _("Undone."))
    if decision.comparison_id is None or "list" in request.POST:
        return redirect("review-decisions", slug)
    return redirect(_here(request, slug, decision.comparison_id))


@login_required
@never_cache
@require_GET
def work(request: HttpRequest, slug: str, user_id: int) -> HttpResponse:
    """One person's rankings; with `?since=`, what discarding all since then would take out."""
    membership = members.reviewer_of(request.user, slug)
    somebody = members.current_or_former_member(membership.project, user_id)
    form = SinceForm(request.GET if "since" in request.GET else None)
    preview = reviews.discard_preview(membership, user_id, form.moment) if form.is_bound and form.is_valid() else None
    page = Paginator(review_cases.work_of(membership.project, user_id), ROWS_A_PAGE).get_page(request.GET.get("page"))
    shown = {"somebody": somebody, "rows": page, "form": form, "preview": preview}
    return _page(request, membership, "work", shown)


@login_required
@require_POST
def discard_since(request: HttpRequest, slug: str, user_id: int) -> HttpResponse:
    membership = members.reviewer_of(request.user, slug)
    form = DiscardSinceForm(request.POST)
    given = checked(form)
    decision = reviews.discard_since(
        membership, user_id, form.moment, reason=given["reason"], expected=given["expected"]
    )
    told = ngettext("%(n)s ranking is discarded.", "%(n)s rankings are discarded.", decision.ranking_count)
    messages.success(request, told % {"n": decision.ranking_count})
    return redirect("review-work", slug, user_id)


def _completions(found: review_cases.Case) -> list[dict[str, Any]]:
    return [
        {"place": place, "letter": LETTERS[place], "html": render_markdown(text), "text": text}
        for place, text in enumerate(found.texts)
    ]


def _opinions(found: review_cases.Case) -> list[ShownOpinion]:
    shown = [each.ranks for each in found.opinions if each.can_be_changed]
    return [
        ShownOpinion(each, each.ranking.annotator.get_username(), _cells(each.ranks, shown)) for each in found.opinions
    ]


def _cells(ranks: Sequence[int], others: Sequence[Sequence[int]]) -> list[tuple[int, bool]]:
    return [(rank, any(other[place] != rank for other in others)) for place, rank in enumerate(ranks)]


def _person_of(request: HttpRequest, membership: Membership) -> Any:
    """Through whose work the reviewer is going, if through anybody's."""
    of = request.GET.get("of", "")
    return members.current_or_former_member(membership.project, int(of)) if of.isdecimal() and len(of) < 16 else None


def _after(request: HttpRequest, membership: Membership, comparison_id: int) -> str:
    """Where the reviewer goes on: the next one of what they are going through, as it is before they decide."""
    found = review_cases.case(membership, comparison_id).comparison
    of = _person_of(request, membership)
    beside = review_cases.beside_in_work(membership.project, of.pk, found) if of else review_cases.beside(found)
    following = beside.next or (beside.previous if not of else None)
    if following is None:
        return reverse("review", args=[membership.project.slug])
    return _here(request, membership.project.slug, following)


def _here(request: HttpRequest, slug: str, comparison_id: int | None) -> str:
    of = request.GET.get("of", "")
    query = f"?of={int(of)}" if of.isdecimal() and len(of) < 16 else ""
    return reverse("review-case", args=[slug, comparison_id]) + query


def _acts(slug: str) -> list[dict[str, str]]:
    """What can be done to a ranking, as dialogs say it."""
    return [
        {
            "name": "return",
            "url": reverse("review-return", args=[slug]),
            "title": _("Return a ranking"),
            "meaning": _(
                "Its annotator gets the comparison again, with your words, before new work. "
                "Until they answer it does not count."
            ),
            "asks": _("What should they look at again? They will read this."),
        },
        {
            "name": "discard",
            "url": reverse("review-discard", args=[slug]),
            "title": _("Discard a ranking"),
            "meaning": _("It leaves the preferences and stays in the record. Somebody else is asked in its place."),
            "asks": _("Why?"),
        },
    ]


def _words() -> dict[str, str]:
    """The sentences that scripts say. Words in braces are filled in there."""
    return {
        "ranked": _("Completion {letter}, rank {rank}"),
        "unranked": _("Completion {letter}, not ranked yet"),
        "missing": _("Not ranked yet: {letters}"),
        "complete": _("All ranked"),
        "too-long-to-compare": _("Too long to show differences."),
    }


def _listed(request: HttpRequest, membership: Membership, kind: str, found: Any) -> HttpResponse:
    page = Paginator(found, ROWS_A_PAGE).get_page(request.GET.get("page"))
    return _page(request, membership, kind, {"rows": page, "tab": kind})


def _page(request: HttpRequest, membership: Membership, page: str, shown: dict[str, Any]) -> HttpResponse:
    context = {"project": membership.project, "membership": membership, "page": "review", **shown}
    return render(request, f"review/{page}.html", context)
