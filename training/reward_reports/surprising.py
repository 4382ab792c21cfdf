"""Rankings that other rankings contradict, for reviewers."""

from django.db.models import Exists, OuterRef, QuerySet
from django.utils.translation import gettext as _

from feedback.actions import reviews
from feedback.errors import Conflict
from feedback.models import Membership, Project, Ranking, Review
from training.models import RewardReport, SurprisingRanking
from training.rounds.inputs.rankings import learnable


def reports_of(project: Project) -> QuerySet[RewardReport]:
    """Return the reports on the project's reward models, the newest first."""
    return RewardReport.objects.filter(round__project=project).select_related("round").order_by("-round__number")


def surprising(project: Project) -> QuerySet[SurprisingRanking]:
    """Return the rankings of the newest report that wait for a reviewer, the highest surprise first.

    A ranking leaves the list when its annotator revises it, when a reviewer discards, returns or overrules it, and when
    a reviewer keeps the rankings of its comparison as they are. A later report does not list a ranking that was kept.
    """
    kept = Review.objects.filter(
        comparison=OuterRef("ranking__comparison"),
        kind=Review.Kind.KEEP,
        undone_at__isnull=True,
        created_at__gte=OuterRef("ranking__created_at"),
    )
    counting = Ranking.objects.counting_in(project).filter(learnable(project), comparison__adjudicated_at__isnull=True)
    listed = SurprisingRanking.objects.filter(
        ~Exists(kept), report__round__project=project, ranking__in=counting.order_by()
    )
    return listed.select_related("ranking__comparison__prompt", "ranking__annotator", "report__round").order_by("place")


def keep(membership: Membership, comparison_id: int) -> Review:
    """Leave the rankings of a comparison as they are; they leave the list. Raise Conflict if none of them is there."""
    if not surprising(membership.project).filter(ranking__comparison=comparison_id).exists():
        raise Conflict(_("No ranking of this comparison is on the list of surprising rankings any more."))
    return reviews.keep(membership, comparison_id, needs_flag=False)
