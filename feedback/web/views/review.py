"""Review pages for reviewers and managers: disagreements, the work of one annotator, decisions."""

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

from feedback.actions import demonstrations, members, review_undo, reviews
from feedback.models import Comparison, Membership, Ranking, Review
from feedback.rendering import render_answer
from feedback.reports import review_cases, statistics
from feedback.web.forms import AdjudicationForm, DiscardSinceForm, RankingReviewForm, ReasonForm, SinceForm, checked
from feedback.web.presenters import LETTERS, present_messages

ROWS_PER_PAGE = 25


@dataclass(frozen=True)
class CaseRow:
    """One person's ranking in the table of a case."""

    entry: review_cases.CaseRanking
    name: str
    cells: list[tuple[int, bool]]  # for each completion its rank, and whether others rank it differently


@login_required
@never_cache
@require_GET
def disagreements(request: HttpRequest, slug: str) -> HttpResponse:
    membership = members.reviewer_of(request.user, slug)
    return _list_page(request, membership, "disagreements", review_cases.disagreements(membership.project))


@login_required
@never_cache
@require_GET
def flagged(request: HttpRequest, slug: str) -> HttpResponse:
    """Show the comparisons with a flag for review."""
    membership = members.reviewer_of(request.user, slug)
    return _list_page(request, membership, "flagged", review_cases.flagged(membership.project))


@login_required
@never_cache
@require_GET
def demonstration_list(request: HttpRequest, slug: str) -> HttpResponse:
    """Show the demonstrations."""
    membership = members.reviewer_of(request.user, slug)
    return _list_page(request, membership, "demonstrations", review_cases.demonstrations(membership.project))


@login_required
@require_POST
def discard_demonstration(request: HttpRequest, slug: str, demonstration_id: int) -> HttpResponse:
    membership = members.reviewer_of(request.user, slug)
    demonstrations.discard(membership, demonstration_id, reason=checked(ReasonForm(request.POST))["reason"])
    messages.success(request, _("Discarded: no round imitates it."))
    return redirect("review-demonstrations", slug)


@login_required
@require_POST
def keep(request: HttpRequest, slug: str, comparison_id: int) -> HttpResponse:
    membership = members.reviewer_of(request.user, slug)
    reviews.keep(membership, comparison_id)
    messages.success(request, _("Kept as it is."))
    return redirect("review-flagged", slug)


@login_required
@never_cache
@require_GET
def persons(request: HttpRequest, slug: str) -> HttpResponse:
    """Show the annotators whose work fails a quality check."""
    membership = members.reviewer_of(request.user, slug)
    everybody = statistics.figures_of_everybody(membership.project)
    context = {"persons": statistics.flagged_people(everybody), "counted": everybody[0], "tab": "people"}
    return _page(request, membership, "people", context)


@login_required
@never_cache
@require_GET
def decisions(request: HttpRequest, slug: str) -> HttpResponse:
    membership = members.reviewer_of(request.user, slug)
    return _list_page(request, membership, "decisions", review_cases.decisions(membership.project))


@login_required
@never_cache
@require_GET
def case(request: HttpRequest, slug: str, comparison_id: int) -> HttpResponse:
    """Show one comparison. With `?of=<user id>`, next and previous follow that person's work, not the disagreements.

    With `?surprising=<ranking id>` the reviewer comes from the list of surprising rankings, and goes back to it.
    """
    membership = members.reviewer_of(request.user, slug)
    reviewed = review_cases.case(membership, comparison_id)
    comparison = reviewed.comparison
    of = _person_of(request, membership)
    can_decide = not membership.project.archived_at and any(entry.can_be_changed for entry in reviewed.rankings)
    gold_ranks = comparison.gold_ranks
    context = {
        "case": reviewed,
        "of": of,
        "is_pair": hasattr(comparison, "demonstration"),
        "surprising": _surprising(request, reviewed),
        "is_from_surprising": "surprising" in request.GET,
        "is_flagged": review_cases.flagged(membership.project).filter(pk=comparison_id).exists(),
        "neighbours": _neighbours(request, membership, comparison, of),
        "query": _query(request),
        "actions": _actions(slug) if can_decide else [],
        "gold": [gold_ranks[position] for position in reviewed.display_order] if gold_ranks else [],
        "key": uuid4(),
        "prompt_messages": present_messages(comparison.prompt.messages),
        "completions": _completions(reviewed),
        "rankings": _case_rows(reviewed),
        "disputed_pairs": [
            {"first": LETTERS[pair.first], "second": LETTERS[pair.second], "pair": pair}
            for pair in reviewed.disputed_pairs
        ],
        "words": _words(),
    }
    return _page(request, membership, "case", context)


@login_required
@require_POST
def adjudicate(request: HttpRequest, slug: str, comparison_id: int) -> HttpResponse:
    membership = members.reviewer_of(request.user, slug)
    form = AdjudicationForm(request.POST)
    cleaned = checked(form)
    following = _following_url(request, membership, comparison_id)
    reviews.adjudicate(
        membership, comparison_id, cleaned["ranks"], reason=cleaned["reason"], **form.key_and_time, **form.details
    )
    messages.success(request, _("Settled: your ranking is the only one that counts."))
    return redirect(following)


@login_required
@require_POST
def return_ranking(request: HttpRequest, slug: str) -> HttpResponse:
    return _decide(request, slug, reviews.return_ranking, _("Returned: its annotator gets it before new work."))


@login_required
@require_POST
def discard(request: HttpRequest, slug: str) -> HttpResponse:
    return _decide(request, slug, reviews.discard, _("Discarded: another annotator will be asked."))


def _decide(request: HttpRequest, slug: str, decide: Callable[..., Review], message: str) -> HttpResponse:
    membership = members.reviewer_of(request.user, slug)
    cleaned = checked(RankingReviewForm(request.POST))
    decision = decide(membership, cleaned["ranking"], reason=cleaned["reason"])
    messages.success(request, message)
    return redirect(_case_url(request, slug, decision.comparison_id))


@login_required
@require_POST
def undo(request: HttpRequest, slug: str, decision_id: int) -> HttpResponse:
    membership = members.reviewer_of(request.user, slug)
    decision = review_undo.undo(membership, decision_id)
    messages.success(request, _("Undone."))
    if decision.comparison_id is None or "list" in request.POST:
        return redirect("review-decisions", slug)
    return redirect(_case_url(request, slug, decision.comparison_id))


@login_required
@never_cache
@require_GET
def work(request: HttpRequest, slug: str, user_id: int) -> HttpResponse:
    """Show one person's rankings; with `?since=`, preview what discarding all since that day would take out."""
    membership = members.reviewer_of(request.user, slug)
    somebody = members.current_or_former_member(membership.project, user_id)
    form = SinceForm(request.GET if "since" in request.GET else None)
    preview = reviews.discard_preview(membership, user_id, form.moment) if form.is_bound and form.is_valid() else None
    page = Paginator(review_cases.rankings_of(membership.project, user_id), ROWS_PER_PAGE).get_page(
        request.GET.get("page")
    )
    context = {"somebody": somebody, "rows": page, "form": form, "preview": preview}
    return _page(request, membership, "work", context)


@login_required
@require_POST
def discard_since(request: HttpRequest, slug: str, user_id: int) -> HttpResponse:
    membership = members.reviewer_of(request.user, slug)
    form = DiscardSinceForm(request.POST)
    cleaned = checked(form)
    decision = reviews.discard_since(
        membership, user_id, form.moment, reason=cleaned["reason"], expected=cleaned["expected"]
    )
    message = ngettext("%(n)s ranking is discarded.", "%(n)s rankings are discarded.", decision.ranking_count)
    messages.success(request, message % {"n": decision.ranking_count})
    return redirect("review-work", slug, user_id)


def _completions(reviewed: review_cases.Case) -> list[dict[str, Any]]:
    return [
        {"place": place, "letter": LETTERS[place], "html": render_answer(answer), "text": answer.text}
        for place, answer in enumerate(reviewed.answers)
    ]


def _case_rows(reviewed: review_cases.Case) -> list[CaseRow]:
    others = [entry.ranks for entry in reviewed.rankings if entry.can_be_changed]
    return [
        CaseRow(entry, entry.ranking.annotator.get_username(), _cells(entry.ranks, others))
        for entry in reviewed.rankings
    ]


def _cells(ranks: Sequence[int], others: Sequence[Sequence[int]]) -> list[tuple[int, bool]]:
    return [(rank, any(other[place] != rank for other in others)) for place, rank in enumerate(ranks)]


def _person_of(request: HttpRequest, membership: Membership) -> Any:
    """Return the person named by `?of=`, whose work the reviewer is reading, or None."""
    of = request.GET.get("of", "")
    return members.current_or_former_member(membership.project, int(of)) if of.isdecimal() and len(of) < 16 else None


def _neighbours(
    request: HttpRequest, membership: Membership, comparison: Comparison, of: Any
) -> review_cases.Neighbours:
    if "surprising" in request.GET:
        return review_cases.Neighbours(None, None)
    if of:
        return review_cases.neighbours_in_work(membership.project, of.pk, comparison)
    return review_cases.neighbours(comparison)


def _following_url(request: HttpRequest, membership: Membership, comparison_id: int) -> str:
    """Return the URL of the next case. Call it before the decision, which may take this case off the list."""
    comparison = review_cases.case(membership, comparison_id).comparison
    of = _person_of(request, membership)
    neighbours = _neighbours(request, membership, comparison, of)
    following = neighbours.next or (neighbours.previous if not of else None)
    if "surprising" in request.GET:
        following = comparison_id  # which links to that list
    if following is None:
        return reverse("review", args=[membership.project.slug])
    return _case_url(request, membership.project.slug, following)


def _case_url(request: HttpRequest, slug: str, comparison_id: int | None) -> str:
    return reverse("review-case", args=[slug, comparison_id]) + _query(request)


def _query(request: HttpRequest) -> str:
    """Return the query that keeps the list which the reviewer reads."""
    of = request.GET.get("of", "")
    if of.isdecimal() and len(of) < 16:
        return f"?of={int(of)}"
    surprising = request.GET.get("surprising", "")
    return f"?surprising={int(surprising)}" if surprising.isdecimal() and len(surprising) < 19 else ""


def _surprising(request: HttpRequest, reviewed: review_cases.Case) -> str:
    """Return who made the ranking that `?surprising=` names, "" if it does not count any more."""
    for entry in reviewed.rankings:
        if str(entry.ranking.pk) == request.GET.get("surprising") and entry.ranking.standing == Ranking.Standing.COUNTS:
            return entry.ranking.annotator.get_username()
    return ""


def _actions(slug: str) -> list[dict[str, str]]:
    """Return the texts of the dialogs that return or discard a ranking."""
    return [
        {
            "name": "return",
            "url": reverse("review-return", args=[slug]),
            "title": _("Return a ranking"),
            "meaning": _(
                "Its annotator gets the comparison again, with your reason, before new work. "
                "The ranking does not count until they submit it again."
            ),
            "question": _("What should the annotator look at again? The annotator reads this text."),
        },
        {
            "name": "discard",
            "url": reverse("review-discard", args=[slug]),
            "title": _("Discard a ranking"),
            "meaning": _("It does not count any more, but stays in the record. Another annotator is asked instead."),
            "question": _("Why?"),
        },
    ]


def _words() -> dict[str, str]:
    """Return the texts that the page's scripts show. The scripts fill in the words in braces."""
    return {
        "ranked": _("Completion {letter}, rank {rank}"),
        "unranked": _("Completion {letter}, not ranked yet"),
        "missing": _("Not ranked yet: {letters}"),
        "complete": _("All ranked"),
        "too-long-to-compare": _("Too long to show differences."),
    }


def _list_page(request: HttpRequest, membership: Membership, kind: str, rows: Any) -> HttpResponse:
    page = Paginator(rows, ROWS_PER_PAGE).get_page(request.GET.get("page"))
    return _page(request, membership, kind, {"rows": page, "tab": kind})


def _page(request: HttpRequest, membership: Membership, page: str, context: dict[str, Any]) -> HttpResponse:
    context = {"project": membership.project, "membership": membership, "page": "review", **context}
    return render(request, f"review/{page}.html", context)
