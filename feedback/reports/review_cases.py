"""What there is to review: disagreements, worst first; one person's work; what was decided. Reads only."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from django.db.models import Exists, OuterRef, Q, QuerySet
from django.utils.translation import gettext as _

from feedback.actions.review_revisions import ADJUDICATION
from feedback.errors import Conflict, NotFound
from feedback.models import Comparison, Membership, Project, Ranking, Review
from feedback.queue import leases


@dataclass(frozen=True)
class CaseRanking:
    """The last word of one person on a comparison. `ranks` are in the order in which the reviewer sees it."""

    ranking: Ranking
    ranks: list[int]

    @property
    def is_adjudication(self) -> bool:
        return self.ranking.reason == ADJUDICATION

    @property
    def can_be_changed(self) -> bool:
        """Whether it can be discarded; also returned, unless the comparison is adjudicated."""
        return self.ranking.is_live and not self.is_adjudication


@dataclass(frozen=True)
class Contest:
    """Two completions (places in the order shown) of which people prefer different ones."""

    first: int
    second: int
    for_first: list[str]  # usernames
    for_second: list[str]


@dataclass(frozen=True)
class Case:
    """A comparison as a reviewer sees it: in an order of their own, without sources, and with names."""

    comparison: Comparison  # with its prompt
    display_order: list[int]
    texts: list[str]
    rankings: list[CaseRanking]  # those that count or did first, each in the order of time
    contests: list[Contest]  # the closest first
    adjudication: Review | None


@dataclass(frozen=True)
class Neighbours:
    """Where one goes on from a comparison; None at an end."""

    previous: int | None
    next: int | None


def disagreements(project: Project) -> QuerySet[Comparison]:
    """What people disagree on and nobody has settled: the largest share of opposed preferences first."""
    found = Comparison.objects.filter(
        project=project, disagreement__gt=0, adjudicated_at__isnull=True, gold_ranks__isnull=True
    )
    return found.select_related("prompt").order_by("-disagreement", "pk")


def beside(comparison: Comparison) -> Neighbours:
    """The disagreements before and after this one, whether it is itself one (still) or not."""
    others = disagreements(comparison.project)
    worse = Q(disagreement__gt=comparison.disagreement) | Q(disagreement=comparison.disagreement, pk__lt=comparison.pk)
    before = others.filter(worse).order_by("disagreement", "-pk")
    after = others.exclude(worse).exclude(pk=comparison.pk)
    return Neighbours(_first(before), _first(after))


def work_of(project: Project, user_id: int) -> QuerySet[Ranking]:
    """The last word of one person on each comparison, the newest first, whatever became of it."""
    later = Ranking.objects.filter(
        comparison=OuterRef("comparison"), annotator=OuterRef("annotator"), revision__gt=OuterRef("revision")
    )
    own = Ranking.objects.filter(~Exists(later), project=project, annotator=user_id)
    return own.select_related("comparison__prompt", "review").order_by("-created_at", "-pk")


def beside_in_work(project: Project, user_id: int, comparison: Comparison) -> Neighbours:
    """The comparisons that the person ranked after and before this one."""
    own = work_of(project, user_id)
    here = own.filter(comparison=comparison).first()
    if here is None:
        raise NotFound(_("This person has not ranked this comparison."))
    newer = Q(created_at__gt=here.created_at) | Q(created_at=here.created_at, pk__gt=here.pk)
    ids = (
        own.filter(newer).order_by("created_at", "pk").values_list("comparison_id", flat=True).first(),
        own.exclude(newer).exclude(pk=here.pk).values_list("comparison_id", flat=True).first(),
    )
    return Neighbours(*ids)


def decisions(project: Project) -> QuerySet[Review]:
    """What reviewers decided, the newest first."""
    return Review.objects.filter(project=project).select_related("reviewer", "annotator", "undone_by").order_by("-pk")


def case(membership: Membership, comparison_id: int) -> Case:
    """Raises NotFound; Conflict while this person has yet to rank the comparison, and must not see what others say."""
    found = Comparison.objects.filter(project=membership.project_id).select_related("prompt", "project")
    comparison = found.filter(pk=comparison_id).first()
    if comparison is None:
        raise NotFound(_("There is no such comparison in this project."))
    if comparison.adjudicated_at is None and _holds(membership, comparison):
        raise Conflict(_("You hold this comparison yourself: rank or skip it before you look at what others said."))
    order = leases.display_order(membership, comparison)
    rankings = _case_rankings(comparison, order)
    said = [each for each in rankings if each.can_be_changed]
    adjudication = decisions(comparison.project).filter(
        comparison=comparison, kind=Review.Kind.ADJUDICATION, undone_at__isnull=True
    )
    return Case(comparison, order, comparison.texts(order), rankings, _contests(said), adjudication.first())


def _holds(membership: Membership, comparison: Comparison) -> bool:
    return comparison.leases.filter(annotator_id=membership.user_id, lapsed_at__isnull=True).exists()


def _case_rankings(comparison: Comparison, order: Sequence[int]) -> list[CaseRanking]:
    last: dict[int, Ranking] = {}
    rows = comparison.rankings.select_related("annotator", "review__reviewer").order_by("revision")
    for ranking in rows:
        last[ranking.annotator_id] = ranking
    in_turn = sorted(last.values(), key=lambda each: (not each.is_live, each.created_at, each.pk))
    # What a reviewer undid is no opinion: the decision in the history says so. Nor is what its annotator withdrew.
    kept = [
        each
        for each in in_turn
        if each.is_live or (each.reason != ADJUDICATION and each.standing != Ranking.Standing.WITHDRAWN)
    ]
    return [CaseRanking(each, [each.ranks[position] for position in order]) for each in kept]


def _contests(rankings: Sequence[CaseRanking]) -> list[Contest]:
    size = len(rankings[0].ranks) if rankings else 0
    every = [_contest(rankings, i, j) for i, j in combinations(range(size), 2)]
    contested = [each for each in every if each.for_first and each.for_second]
    return sorted(contested, key=lambda each: abs(len(each.for_first) - len(each.for_second)))


def _contest(rankings: Sequence[CaseRanking], first: int, second: int) -> Contest:
    sides: tuple[list[str], list[str]] = ([], [])
    for each in rankings:
        if each.ranks[first] != each.ranks[second]:
            sides[each.ranks[first] > each.ranks[second]].append(each.ranking.annotator.username)
    return Contest(first, second, *sides)


def _first(comparisons: QuerySet[Comparison]) -> int | None:
    return comparisons.values_list("pk", flat=True).first()
