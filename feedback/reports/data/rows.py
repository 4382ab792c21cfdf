"""Single rows with all that belongs to them: a prompt, a completion, a comparison with its history."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.db.models import Q
from django.utils.translation import gettext as _

from feedback.errors import Conflict, NotFound
from feedback.models import (
    Comparison,
    ComparisonItem,
    Completion,
    Demonstration,
    Lease,
    Membership,
    Project,
    Prompt,
    Ranking,
    Review,
    Skip,
)

KINDS = ("made", "lease", "ranking", "revision", "review", "review_undone", "skip", "demonstration")  # of events
MAX_LISTED = 200  # completions or comparisons on the page of a prompt or of a completion


@dataclass(frozen=True)
class PromptRow:
    """A prompt with its first completions and comparisons, newest first."""

    prompt: Prompt
    completions: list[Completion]
    comparisons: list[Comparison]


@dataclass(frozen=True)
class Event:
    """Something that happened to a comparison. `kind` says which of the other fields it has."""

    kind: str  # one of KINDS; a revision is one that a review wrote
    at: datetime
    who: str  # username, "": nobody
    ranking: Ranking | None = None
    review: Review | None = None
    skip: Skip | None = None
    lease: Lease | None = None
    demonstration: Demonstration | None = None


@dataclass(frozen=True)
class ComparisonRow:
    """A comparison with its completions by position, and everything that happened to it, oldest first."""

    comparison: Comparison
    items: list[ComparisonItem]
    events: list[Event]


@dataclass(frozen=True)
class ComparedIn:
    """A comparison that a completion is in, with the completion's position and all live rankings."""

    comparison: Comparison
    position: int
    rankings: list[Ranking] = field(default_factory=list)
    is_held: bool = False  # by the reader, who must not see the others' rankings


@dataclass(frozen=True)
class CompletionRow:
    """A completion with its source, its prompt, the comparisons that it is in, and its demonstration, if it is one."""

    completion: Completion
    compared: list[ComparedIn]
    demonstration: Demonstration | None
    edited: list[Demonstration]  # that were edited from this completion


def prompt_row(project: Project, prompt_id: int) -> PromptRow:
    """Return a prompt of the project. Raises NotFound."""
    prompt = Prompt.objects.filter(project=project, pk=prompt_id).prefetch_related("external_ids").first()
    if prompt is None:
        raise NotFound(_("There is no such prompt in this project."))
    completions = prompt.completions.select_related("source", "author", "demonstration").order_by("-pk")[:MAX_LISTED]
    comparisons = prompt.comparisons.select_related("demonstration").order_by("-pk")[:MAX_LISTED]
    return PromptRow(prompt, list(completions), list(comparisons))


def completion_row(membership: Membership, completion_id: int) -> CompletionRow:
    """Return a completion of the member's project. Raises NotFound.

    Without the rankings of comparisons that this person holds: the others' rankings would bias their own.
    """
    completions = Completion.objects.select_related("prompt", "source", "author", "made_by_import")
    completion = completions.filter(pk=completion_id, source__project=membership.project_id).first()
    if completion is None:
        raise NotFound(_("There is no such completion in this project."))
    items = list(completion.items.select_related("comparison").order_by("-comparison")[:MAX_LISTED])
    ids = [item.comparison_id for item in items]
    held = set(_held_by(membership).filter(comparison__in=ids).values_list("comparison", flat=True))
    rankings: dict[int, list[Ranking]] = {pk: [] for pk in ids}
    live = Ranking.objects.filter(comparison__in=set(ids) - held, is_live=True)
    for ranking in live.select_related("annotator").order_by("created_at", "pk"):
        rankings[ranking.comparison_id].append(ranking)
    compared = [
        ComparedIn(item.comparison, item.position, rankings[item.comparison_id], item.comparison_id in held)
        for item in items
    ]
    demonstrations = Demonstration.objects.with_discard().select_related("completion__author", "pair")
    edited = demonstrations.filter(pair__in=ids).exclude(completion=completion)
    return CompletionRow(
        completion, compared, demonstrations.filter(completion=completion).first(), list(edited.order_by("pk"))
    )


def comparison_row(membership: Membership, comparison_id: int) -> ComparisonRow:
    """Return a comparison of the member's project with its history.

    Raises NotFound, and Conflict while this person holds a lease on it: the others' rankings would bias their own.
    """
    comparisons = Comparison.objects.select_related("prompt", "made_by_import__actor", "demonstration")
    comparison = comparisons.filter(project=membership.project_id, pk=comparison_id).first()
    if comparison is None:
        raise NotFound(_("There is no such comparison in this project."))
    if comparison.adjudicated_at is None and _held_by(membership).filter(comparison=comparison).exists():
        raise Conflict(_("You hold this comparison yourself: rank or skip it before you look at the others' rankings."))
    items = comparison.items.select_related("completion__source", "completion__author").order_by("position")
    return ComparisonRow(comparison, list(items), sorted(_events(comparison), key=lambda event: event.at))


def _held_by(membership: Membership) -> Any:
    return Lease.objects.filter(annotator=membership.user_id, project=membership.project_id, lapsed_at__isnull=True)


def _events(comparison: Comparison) -> Iterable[Event]:
    """Yield everything that happened to a comparison; what happened at the same time comes in the order of cause."""
    made_by = comparison.made_by_import.actor if comparison.made_by_import else None
    yield Event("made", comparison.created_at, made_by.username if made_by else "")
    for lease in comparison.leases.select_related("annotator"):
        yield Event("lease", lease.taken_at, lease.annotator.username, lease=lease)
    for demonstration in _demonstrations_of(comparison):
        author = demonstration.completion.author
        name = author.username if author else ""
        yield Event("demonstration", demonstration.created_at, name, demonstration=demonstration)
    for skip in comparison.skips.select_related("annotator"):
        yield Event("skip", skip.created_at, skip.annotator.username, skip=skip)
    with_content = comparison.rankings.exclude(standing=Ranking.Standing.ERASED)
    rankings = list(with_content.select_related("annotator", "review").order_by("pk"))
    for review in _reviews_of(comparison, [ranking.review_id for ranking in rankings]):
        yield Event("review", review.created_at, review.reviewer.username, review=review)
        if review.undone_at is not None and review.undone_by is not None:
            yield Event("review_undone", review.undone_at, review.undone_by.username, review=review)
    yield from _revisions(rankings)


def _revisions(rankings: Iterable[Ranking]) -> Iterable[Event]:
    """Yield every revision. Those that a decision wrote have its time, or that of its undo, not that of the ranking."""
    decided: set[tuple[int | None, int]] = set()
    for ranking in rankings:
        key = (ranking.review_id, ranking.annotator_id)
        if ranking.review is None or (ranking.reason == Lease.Reason.ADJUDICATION and key not in decided):
            kind, at = "ranking", ranking.created_at
        else:
            kind, at = "revision", ranking.review.created_at
            if key in decided and ranking.review.undone_at is not None:
                at = ranking.review.undone_at
        decided.add(key)
        yield Event(kind, at, ranking.annotator.username, ranking=ranking)


def _demonstrations_of(comparison: Comparison) -> Iterable[Demonstration]:
    written_here = Q(comparison=comparison) | Q(pair=comparison)
    return Demonstration.objects.filter(written_here).select_related("completion__author").order_by("pk")


def _reviews_of(comparison: Comparison, of_rankings: list[int | None]) -> Iterable[Review]:
    """Return the decisions about the comparison or one of its rankings. Discarding a person's work names none."""
    reviews = Review.objects.filter(Q(comparison=comparison) | Q(pk__in=[pk for pk in of_rankings if pk is not None]))
    return reviews.select_related("reviewer", "annotator", "undone_by").order_by("pk")
