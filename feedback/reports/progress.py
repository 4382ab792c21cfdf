"""Progress: what a person has ranked and can still rank, and what a project contains."""

from dataclasses import dataclass
from datetime import datetime

from django.db.models import Count, F, Q, QuerySet
from django.utils import timezone
from django.utils.translation import gettext as _

from feedback.errors import NotFound
from feedback.models import Comparison, Completion, Lease, Membership, Project, Prompt, Ranking, User
from feedback.queue import blinding, claim, gold

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
    of_project = Comparison.objects.filter(project_id=membership.project_id)
    held = of_project.filter(leases__annotator_id=membership.user_id, leases__lapsed_at__isnull=True)
    open_ones = claim.permitted(of_project.filter(open_slots__gt=0), membership)
    waiting = list(open_ones.values_list("pk", flat=True)[: MAX_REMAINING + 1])
    remaining = held.count() + len(waiting) + gold.gold_to_come(membership, waiting)
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
    return (
        Membership.objects.filter(user=user)
        .select_related("project")
        .annotate(ranked_today=Count("project__rankings", filter=since_midnight))
        .order_by(F("project__archived_at").asc(nulls_first=True), "project__name")
    )


@dataclass(frozen=True)
class Inventory:
    """The numbers of a project's prompts, completions, comparisons and rankings."""

    train_prompts: int
    held_out_prompts: int
    completions: int
    comparisons: int
    open_comparisons: int
    rankings: int


def inventory(project: Project) -> Inventory:
    return Inventory(
        train_prompts=project.prompts.filter(split=Prompt.Split.TRAIN).count(),
        held_out_prompts=project.prompts.filter(split=Prompt.Split.HELD_OUT).count(),
        completions=Completion.objects.filter(prompt__project=project).count(),
        comparisons=project.comparisons.count(),
        open_comparisons=project.comparisons.filter(open_slots__gt=0, gold_ranks__isnull=True).count(),
        rankings=project.rankings.filter(is_live=True).count(),
    )


def prompt_seen(membership: Membership, number: int) -> Prompt:
    """Return the prompt of a comparison that this person holds or has ranked, by the number that their page shows.

    Raises NotFound.
    """
    comparison_id = blinding.comparison_id(membership, number)
    of_person = {"comparison": comparison_id, "annotator_id": membership.user_id}
    has_seen = Lease.objects.filter(**of_person).exists() or Ranking.objects.filter(**of_person).exists()
    prompt = Prompt.objects.filter(comparisons=comparison_id, project=membership.project_id).first()
    if not has_seen or prompt is None:
        raise NotFound(_("You do not hold this comparison."))
    return prompt


def midnight() -> datetime:
    """Return the start of today in the local time zone."""
    return timezone.localtime().replace(hour=0, minute=0, second=0, microsecond=0)
