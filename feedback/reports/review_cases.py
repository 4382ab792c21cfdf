"""Read disagreements, the work of one person and past decisions, for reviewers."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from django.db.models import Exists, OuterRef, Q, QuerySet, Subquery
from django.utils.translation import gettext as _

from feedback.actions import reviews
from feedback.actions.review_revisions import ADJUDICATION
from feedback.dialogues import Answer
from feedback.errors import Conflict, NotFound
from feedback.models import Comparison, Demonstration, Lease, Membership, Project, Ranking, Review
from feedback.models.rankings import WITHOUT_LEASE
from feedback.queue import lease_rows


@dataclass(frozen=True)
class CaseRanking:
    """The last revision of one person's ranking of a comparison. `ranks` are in the reviewer's display order."""

    ranking: Ranking
    ranks: list[int]

    @property
    def is_adjudication(self) -> bool:
        return self.ranking.reason == ADJUDICATION

    @property
    def can_be_changed(self) -> bool:
        """Return whether it can be discarded, and returned unless the comparison is adjudicated."""
        return self.ranking.is_live and self.ranking.reason not in WITHOUT_LEASE


@dataclass(frozen=True)
class DisputedPair:
    """Two completions (places in the display order), each of which somebody prefers to the other."""

    first: int
    second: int
    for_first: list[str]  # usernames
    for_second: list[str]


@dataclass(frozen=True)
class Case:
    """A comparison as a reviewer sees it: in their own display order, without sources, with the annotators' names."""

    comparison: Comparison  # with its prompt
    display_order: list[int]
    answers: list[Answer]
    rankings: list[CaseRanking]  # live ones first, each group by time
    disputed_pairs: list[DisputedPair]  # the most even first
    adjudication: Review | None


@dataclass(frozen=True)
class Neighbours:
    """The ids of the comparisons before and after one in a list; None at an end."""

    previous: int | None
    next: int | None


def disagreements(project: Project) -> QuerySet[Comparison]:
    """Return comparisons with opposed preferences that no reviewer has adjudicated, the largest disagreement first."""
    disputed = Comparison.objects.filter(
        project=project, disagreement__gt=0, adjudicated_at__isnull=True, gold_ranks__isnull=True
    )
    return disputed.select_related("prompt").order_by("-disagreement", "pk")


def flagged(project: Project) -> QuerySet[Comparison]:
    """Return comparisons with a flag for review since a reviewer last kept them as they are, the newest first.

    Those that a reviewer has adjudicated are left out. `comparison.flags` has the flags, and `flagged_at` their time.
    """
    kept_later = Review.objects.filter(
        comparison=OuterRef("comparison"),
        kind=Review.Kind.KEEP,
        undone_at__isnull=True,
        created_at__gte=OuterRef("created_at"),
    )
    rankings = reviews.flagged_rankings(project).filter(~Exists(kept_later), comparison__adjudicated_at__isnull=True)
    last = rankings.filter(comparison=OuterRef("pk")).order_by("-created_at")
    comparisons = Comparison.objects.filter(project=project, pk__in=rankings.values("comparison"))
    annotated = comparisons.annotate(
        flags=Subquery(last.values("flags")[:1]),
        flagged_by=Subquery(last.values("annotator__username")[:1]),
        flagged_at=Subquery(last.values("created_at")[:1]),
    )
    return annotated.select_related("prompt").order_by("-flagged_at", "pk")


def demonstrations(project: Project) -> QuerySet[Demonstration]:
    """Return the demonstrations, discarded ones too, the newest first, with prompt, author and source loaded."""
    written = Demonstration.objects.written_in(project).with_discard()
    loaded = written.select_related("completion__prompt", "completion__author", "completion__source")
    return loaded.order_by("-created_at", "-pk")


def neighbours(comparison: Comparison) -> Neighbours:
    """Return the disagreements before and after this comparison, which need not be one itself (any more)."""
    others = disagreements(comparison.project)
    worse = Q(disagreement__gt=comparison.disagreement) | Q(disagreement=comparison.disagreement, pk__lt=comparison.pk)
    before = others.filter(worse).order_by("disagreement", "-pk")
    after = others.exclude(worse).exclude(pk=comparison.pk)
    return Neighbours(_first_id(before), _first_id(after))


def rankings_of(project: Project, user_id: int) -> QuerySet[Ranking]:
    """Return the last revision of each of a person's rankings, the newest first, whatever its standing."""
    later = Ranking.objects.filter(
        comparison=OuterRef("comparison"), annotator=OuterRef("annotator"), revision__gt=OuterRef("revision")
    )
    last = Ranking.objects.filter(~Exists(later), project=project, annotator=user_id)
    last = last.exclude(reason=Lease.Reason.DEMONSTRATION).exclude(standing=Ranking.Standing.ERASED)
    return last.select_related("comparison__prompt", "review").order_by("-created_at", "-pk")


def neighbours_in_work(project: Project, user_id: int, comparison: Comparison) -> Neighbours:
    """Return the comparisons that the person ranked after and before this one."""
    rankings = rankings_of(project, user_id)
    current = rankings.filter(comparison=comparison).first()
    if current is None:
        raise NotFound(_("This person has not ranked this comparison."))
    newer = Q(created_at__gt=current.created_at) | Q(created_at=current.created_at, pk__gt=current.pk)
    ids = (
        rankings.filter(newer).order_by("created_at", "pk").values_list("comparison_id", flat=True).first(),
        rankings.exclude(newer).exclude(pk=current.pk).values_list("comparison_id", flat=True).first(),
    )
    return Neighbours(*ids)


def decisions(project: Project) -> QuerySet[Review]:
    """Return the reviewers' decisions, the newest first."""
    return (
        Review.objects.filter(project=project)
        .select_related("reviewer", "annotator", "undone_by", "demonstration__completion")
        .order_by("-pk")
    )


def case(membership: Membership, comparison_id: int) -> Case:
    """Return a comparison with its rankings.

    Raises NotFound, and Conflict while this person holds a lease on it: the others' rankings would bias their own.
    """
    comparisons = Comparison.objects.filter(project=membership.project_id).select_related("prompt", "project")
    comparison = comparisons.filter(pk=comparison_id).first()
    if comparison is None:
        raise NotFound(_("There is no such comparison in this project."))
    if comparison.adjudicated_at is None and _has_lease(membership, comparison):
        raise Conflict(_("You hold this comparison yourself: rank or skip it before you look at the others' rankings."))
    order = lease_rows.display_order(membership, comparison)
    rankings = _rankings(comparison, order)
    disputed_pairs = _disputed_pairs([ranking for ranking in rankings if ranking.can_be_changed])
    adjudication = decisions(comparison.project).filter(
        comparison=comparison, kind=Review.Kind.ADJUDICATION, undone_at__isnull=True
    )
    return Case(comparison, order, comparison.answers(order), rankings, disputed_pairs, adjudication.first())


def _has_lease(membership: Membership, comparison: Comparison) -> bool:
    return comparison.leases.filter(annotator_id=membership.user_id, lapsed_at__isnull=True).exists()


def _rankings(comparison: Comparison, order: Sequence[int]) -> list[CaseRanking]:
    last: dict[int, Ranking] = {}
    with_content = comparison.rankings.exclude(standing=Ranking.Standing.ERASED)
    for ranking in with_content.select_related("annotator", "review__reviewer").order_by("revision"):
        last[ranking.annotator_id] = ranking
    visible = sorted(filter(_is_visible, last.values()), key=lambda row: (not row.is_live, row.created_at, row.pk))
    return [CaseRanking(ranking, [ranking.ranks[position] for position in order]) for ranking in visible]


def _is_visible(ranking: Ranking) -> bool:
    """Leave out adjudications that were undone, which the list of decisions shows, and withdrawn rankings."""
    is_withdrawn = ranking.standing == Ranking.Standing.WITHDRAWN
    return ranking.is_live or (ranking.reason != ADJUDICATION and not is_withdrawn)


def _disputed_pairs(rankings: Sequence[CaseRanking]) -> list[DisputedPair]:
    size = len(rankings[0].ranks) if rankings else 0
    pairs = [_preferences_on(rankings, first, second) for first, second in combinations(range(size), 2)]
    disputed = [pair for pair in pairs if pair.for_first and pair.for_second]
    return sorted(disputed, key=lambda pair: abs(len(pair.for_first) - len(pair.for_second)))


def _preferences_on(rankings: Sequence[CaseRanking], first: int, second: int) -> DisputedPair:
    pair = DisputedPair(first, second, [], [])
    for ranking in rankings:
        if ranking.ranks[first] != ranking.ranks[second]:
            prefers_first = ranking.ranks[first] < ranking.ranks[second]
            (pair.for_first if prefers_first else pair.for_second).append(ranking.ranking.annotator.username)
    return pair


def _first_id(comparisons: QuerySet[Comparison]) -> int | None:
    return comparisons.values_list("pk", flat=True).first()
