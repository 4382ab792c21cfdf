"""Progress: what a person has ranked and can still rank, and what a project contains."""

from dataclasses import dataclass

from django.db.models import Count, F, Q, QuerySet

from feedback.models import Comparison, Completion, Demonstration, Lease, Membership, Project, Prompt, Ranking, User
from feedback.queue import claim, gold, limits
from feedback.queue.limits import midnight

MAX_REMAINING = 500  # open comparisons are counted up to this number: beyond it the exact number does not matter


@dataclass(frozen=True)
class Counts:
    """Numbers of rankings that a person has made today and may still make."""

    today: int  # rankings since midnight
    remaining: int  # comparisons, at most MAX_REMAINING
    more: bool  # than MAX_REMAINING
    exist: bool  # whether the project has comparisons
    is_new: bool  # has never ranked here


def counts(membership: Membership) -> Counts:
    ranked = Ranking.objects.filter(annotator_id=membership.user_id, project_id=membership.project_id, is_live=True)
    ranked = ranked.exclude(reason=Lease.Reason.DEMONSTRATION)
    of_project = Comparison.objects.filter(project_id=membership.project_id)
    held = of_project.filter(leases__annotator_id=membership.user_id, leases__lapsed_at__isnull=True)
    open_ones = claim.permitted(Comparison.objects.waiting_in(membership.project), membership)
    waiting = list(open_ones.values_list("pk", flat=True)[: MAX_REMAINING + 1])
    holds = held.count()
    remaining = holds + len(waiting) + gold.gold_to_come(membership, waiting)
    remaining = min([remaining, *(holds + limit.left for limit in limits.limits_of(membership))])
    return Counts(
        today=ranked.filter(created_at__gte=midnight()).count(),
        remaining=min(remaining, MAX_REMAINING),
        more=remaining > MAX_REMAINING,
        exist=remaining > 0 or of_project.exists(),
        is_new=not ranked.exists(),
    )


def memberships_of(user: User) -> QuerySet[Membership]:
    """Return a person's memberships by project name, annotated with their rankings since midnight as `ranked_today`."""
    since_midnight = Q(
        project__rankings__annotator=F("user"),
        project__rankings__is_live=True,
        project__rankings__created_at__gte=midnight(),
    )
    of_pairs = Q(project__rankings__reason=Lease.Reason.DEMONSTRATION)
    return (
        Membership.objects.filter(user=user)
        .select_related("project")
        .annotate(ranked_today=Count("project__rankings", filter=since_midnight & ~of_pairs))
        .order_by(F("project__archived_at").asc(nulls_first=True), "project__name")
    )


@dataclass(frozen=True)
class Inventory:
    """The numbers of a project's prompts, completions, comparisons, rankings and demonstrations.

    Pairs of a demonstration and its origin, which the queue gives to nobody, do not count as comparisons here.
    """

    train_prompts: int
    held_out_prompts: int
    completions: int
    comparisons: int
    open_comparisons: int
    rankings: int
    demonstrations: int


def inventory(project: Project) -> Inventory:
    return Inventory(
        train_prompts=project.prompts.filter(split=Prompt.Split.TRAIN).count(),
        held_out_prompts=project.prompts.filter(split=Prompt.Split.HELD_OUT).count(),
        completions=Completion.objects.filter(prompt__project=project).count(),
        comparisons=project.comparisons.filter(demonstration__isnull=True).count(),
        open_comparisons=Comparison.objects.waiting_in(project).count(),
        rankings=project.rankings.filter(is_live=True).exclude(reason=Lease.Reason.DEMONSTRATION).count(),
        demonstrations=Demonstration.objects.counting_in(project).count(),
    )
