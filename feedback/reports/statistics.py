"""Figures about people: of everybody for managers, of oneself for annotators.

The amount of work is counted at each request. Its quality comes from `quality_snapshot` for everybody, which all pages
and the API share, and from `own_quality` for oneself.
"""

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import connection
from django.db.models import Count, QuerySet
from django.db.models.functions import TruncDate
from django.utils import timezone

from feedback.models import Demonstration, Lease, Membership, Project, Ranking, Reliability, Skip, User
from feedback.models.rankings import WITHOUT_LEASE
from feedback.quality import reliability
from feedback.quality.agreement import Estimate
from feedback.quality.checks import CheckResult
from feedback.reports import own_quality, quality_snapshot, trust
from feedback.reports.progress import midnight

DAYS = 14  # of the counts by day
MIN_GOLD = 10  # gold rankings before annotators see their pass rate: fewer would reveal which ones these are

# The first revision counts as a ranking even if a reviewer took it out later. `is_live` counts what still stands.
# A time of 0 is unknown: many imported files have none.
WORK_DONE = """
    SELECT annotator_id,
        count(*) FILTER (WHERE revision = 1 AND created_at >= %(midnight)s),
        count(*) FILTER (WHERE revision = 1 AND created_at >= %(week)s),
        count(*) FILTER (WHERE revision = 1),
        count(*) FILTER (WHERE is_live),
        percentile_cont(0.5) WITHIN GROUP (ORDER BY seconds) FILTER (WHERE is_live AND seconds > 0),
        max(created_at)
    FROM feedback_ranking
    WHERE project_id = %(project)s AND reason <> 'adjudication' AND reason <> 'demonstration'
        AND (%(user)s::bigint IS NULL OR annotator_id = %(user)s)
    GROUP BY annotator_id
"""


@dataclass(frozen=True)
class WorkDone:
    """Numbers of rankings that one person has made, and their pace."""

    today: int = 0
    week: int = 0  # the last seven days
    total: int = 0
    live: int = 0  # of the total: neither returned nor discarded
    seconds: float | None = None  # the median
    last_at: datetime | None = None

    @property
    def taken_out(self) -> int:
        return self.total - self.live


@dataclass(frozen=True)
class PersonFigures:
    """The figures of one person, as managers and reviewers see them."""

    user: User
    role: str | None  # None: has left
    done: WorkDone
    days: list[int]  # rankings per day, the last one today
    skips: int
    agreement: Estimate | None
    gold: Estimate | None
    reliability: Reliability | None  # of the last report, which may be older than the other figures
    flagged_checks: list[CheckResult]
    as_of: datetime  # of agreement, gold and checks
    is_current: bool  # the record has not changed since `as_of`

    @property
    def is_flagged(self) -> bool:
        return bool(self.flagged_checks)


@dataclass(frozen=True)
class OwnFigures:
    """The figures that a person sees of themselves.

    Agreement and gold are of full batches up to midnight. They are None unless the project lets annotators see them.
    """

    done: WorkDone
    days: list[int]
    skips: int
    demonstrations: int
    returned: int  # comparisons that reviewers returned
    agreement: Estimate | None
    gold: Estimate | None


def figures_of_everybody(project: Project) -> list[PersonFigures]:
    """Return the figures of all members and of everybody who has ranked, by username.

    The number of queries does not depend on the number of people.
    """
    roles = dict(project.memberships.values_list("user_id", "role"))
    done, days, skips = _work_done(project), _rankings_by_day(project), _skips(project)
    quality, report = quality_snapshot.get_quality(project), reliability.latest(project)
    by_annotator, flagged = quality.agreement.by_annotator, trust.flagged_checks(quality, report)
    reliabilities = {estimate.annotator_id: estimate for estimate in report.annotators.all()} if report else {}
    labels = dict(Membership.Role.choices)
    return [
        PersonFigures(
            user,
            str(labels[roles[user.pk]]) if user.pk in roles else None,
            done.get(user.pk, WorkDone()),
            days[user.pk],
            skips.get(user.pk, 0),
            by_annotator[user.pk].pairwise if user.pk in by_annotator else None,
            quality.gold.get(user.pk),
            reliabilities.get(user.pk),
            list(flagged.get(user.pk, {}).values()),
            quality.as_of,
            quality.is_current,
        )
        for user in User.objects.filter(pk__in={*roles, *done}).order_by("username")
    ]


def flagged_people(people: list[PersonFigures]) -> list[PersonFigures]:
    """Return the people whom a check flags, those with the most flags first."""
    flagged = [person for person in people if person.is_flagged]
    return sorted(flagged, key=lambda person: -len(person.flagged_checks))


def own_figures(membership: Membership) -> OwnFigures:
    """Return one person's figures: the amount is counted now, the quality comes from `own_quality`."""
    project, user_id = membership.project, membership.user_id
    quality = own_quality.get_own_quality(membership) if project.annotators_see_quality else None
    pass_rate = quality.gold if quality else None
    returned = Lease.objects.filter(
        project=project, annotator=user_id, reason=Lease.Reason.RETURNED, lapsed_at__isnull=True
    )
    return OwnFigures(
        _work_done(project, user_id).get(user_id, WorkDone()),
        _rankings_by_day(project, user_id)[user_id],
        _skips(project, user_id).get(user_id, 0),
        Demonstration.objects.counting_in(project).filter(completion__author=user_id).count(),
        returned.count(),
        quality.agreement if quality else None,
        pass_rate if pass_rate is not None and pass_rate.comparisons >= MIN_GOLD else None,
    )


def _work_done(project: Project, user_id: int | None = None) -> dict[int, WorkDone]:
    """Return the numbers of rankings of everybody, or of one person, by user id."""
    today = midnight()
    parameters = {"project": project.pk, "user": user_id, "midnight": today, "week": today - timedelta(days=6)}
    with connection.cursor() as cursor:
        cursor.execute(WORK_DONE, parameters)
        return {annotator_id: WorkDone(*figures) for annotator_id, *figures in cursor.fetchall()}


def _rankings_by_day(project: Project, user_id: int | None = None) -> dict[int, list[int]]:
    today, first = timezone.localdate(), midnight() - timedelta(days=DAYS - 1)
    made = Ranking.objects.filter(project=project, revision=1, created_at__gte=first)
    made = _of_user(user_id, made.exclude(reason__in=WITHOUT_LEASE).order_by())
    rows = made.annotate(day=TruncDate("created_at")).values_list("annotator_id", "day").annotate(count=Count("pk"))
    days: dict[int, list[int]] = defaultdict(lambda: [0] * DAYS)
    for annotator_id, day, count in rows:
        days[annotator_id][DAYS - 1 - (today - day).days] = count
    return days


def _skips(project: Project, user_id: int | None = None) -> dict[int, int]:
    made = _of_user(user_id, Skip.objects.filter(comparison__project=project).order_by())
    return dict(made.values_list("annotator_id").annotate(count=Count("pk")))


def _of_user(user_id: int | None, rows: QuerySet[Any]) -> QuerySet[Any]:
    return rows if user_id is None else rows.filter(annotator=user_id)
