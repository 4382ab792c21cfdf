"""What people have done in a project, how well, and how it goes: of everybody for managers, of oneself for annotators.

How much somebody did is counted when it is asked for. How well, over everything, is that of `quality_snapshot`, as all
pages and the API show it.
"""

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import connection
from django.db.models import Count, QuerySet
from django.db.models.functions import TruncDate
from django.utils import timezone

from feedback.models import Lease, Membership, Project, Ranking, Reliability, Skip, User
from feedback.quality import agreement, reliability
from feedback.quality.agreement import Estimate
from feedback.quality.checks import Sign
from feedback.queue import gold
from feedback.reports import quality_snapshot, trust
from feedback.reports.progress import midnight

DAYS = 14  # of the counts by day
OWN_BATCH = 50  # one's own rankings after which one's own quality is told anew: more often would tell which are gold
LEAST_GOLD = 10  # rankings of gold from which somebody is told their pass rate: fewer would show which ones these are

# A first revision is something said, whatever became of it; a live one stands.
DONE = """
    SELECT annotator_id,
        count(*) FILTER (WHERE revision = 1 AND created_at >= %(midnight)s),
        count(*) FILTER (WHERE revision = 1 AND created_at >= %(week)s),
        count(*) FILTER (WHERE revision = 1),
        count(*) FILTER (WHERE is_live),
        percentile_cont(0.5) WITHIN GROUP (ORDER BY seconds) FILTER (WHERE is_live),
        max(created_at)
    FROM feedback_ranking
    WHERE project_id = %(project)s AND reason <> 'adjudication'
        AND (%(only)s::bigint IS NULL OR annotator_id = %(only)s)
    GROUP BY annotator_id
"""


@dataclass(frozen=True)
class Done:
    """How much one person has ranked."""

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
class Person:
    """One person's figures, as managers and reviewers see them."""

    user: User
    role: str | None  # None: has left
    done: Done
    days: list[int]  # rankings a day, the last one today
    skips: int
    agreement: Estimate | None
    gold: Estimate | None
    reliability: Reliability | None  # as of the last report, which may be a little older
    signs: list[Sign]  # of carelessness, those that are beyond chance
    as_of: datetime  # of agreement, gold and signs
    is_current: bool  # nothing was said or decided since `as_of`

    @property
    def is_flagged(self) -> bool:
        return bool(self.signs)


@dataclass(frozen=True)
class OwnFigures:
    """One's own figures. How well is of full batches up to midnight, and None unless the project lets people see it."""

    done: Done
    days: list[int]
    skips: int
    returned: int  # comparisons that reviewers ask one to look at again
    agreement: Estimate | None
    gold: Estimate | None


def of_everybody(project: Project) -> list[Person]:
    """Members and whoever has ranked, by username: the same number of queries for any number of people."""
    roles = dict(project.memberships.values_list("user_id", "role"))
    done, days, skips = _done(project), _by_day(project), _skips(project)
    quality, report = quality_snapshot.of(project), reliability.latest(project)
    measured, signs = quality.agreement.by_annotator, trust.flagged_signs(quality, report)
    reliable = {each.annotator_id: each for each in report.annotators.all()} if report else {}
    labels = dict(Membership.Role.choices)
    return [
        Person(
            user,
            str(labels[roles[user.pk]]) if user.pk in roles else None,
            done.get(user.pk, Done()),
            days[user.pk],
            skips.get(user.pk, 0),
            measured[user.pk].pairwise if user.pk in measured else None,
            quality.gold.get(user.pk),
            reliable.get(user.pk),
            list(signs.get(user.pk, {}).values()),
            quality.as_of,
            quality.is_current,
        )
        for user in User.objects.filter(pk__in={*roles, *done}).order_by("username")
    ]


def to_look_at(persons: list[Person]) -> list[Person]:
    """Whose work shows a sign of carelessness, those with most signs first."""
    return sorted((each for each in persons if each.is_flagged), key=lambda each: -len(each.signs))


def own_figures(membership: Membership) -> OwnFigures:
    """Of one person, reading their own rankings and those of the same comparisons."""
    project, me = membership.project, membership.user_id
    until = _full_batches_until(membership) if project.annotators_see_quality else None
    passed = gold.pass_rates(project, until=until, user_id=me).get(me) if until else None
    return OwnFigures(
        _done(project, me).get(me, Done()),
        _by_day(project, me)[me],
        _skips(project, me).get(me, 0),
        Lease.objects.filter(
            project=project, annotator=me, reason=Lease.Reason.RETURNED, lapsed_at__isnull=True
        ).count(),
        agreement.of_annotator(project, me, until=until).overall.pairwise if until else None,
        passed if passed is not None and passed.comparisons >= LEAST_GOLD else None,
    )


def _full_batches_until(membership: Membership) -> datetime | None:
    """Return when the last full batch of the person's rankings before midnight ended; None: none is full.

    A figure that moved with each ranking, or with a revision of one, would tell its annotator whether that was gold.
    Nothing said after the batch's end changes what is told of it.
    """
    made = Ranking.objects.filter(project=membership.project, annotator=membership.user_id, revision=1)
    made = made.exclude(reason=Lease.Reason.ADJUDICATION).filter(created_at__lt=midnight())
    full = made.count() // OWN_BATCH * OWN_BATCH
    if not full:
        return None
    ended = made.order_by("created_at", "pk").values_list("created_at", flat=True)[full - 1]
    return ended + timedelta(microseconds=1)


def _done(project: Project, only: int | None = None) -> dict[int, Done]:
    """By user id: of everybody, or of one person."""
    now = midnight()
    asked = {"project": project.pk, "only": only, "midnight": now, "week": now - timedelta(days=6)}
    with connection.cursor() as cursor:
        cursor.execute(DONE, asked)
        return {annotator_id: Done(*figures) for annotator_id, *figures in cursor.fetchall()}


def _by_day(project: Project, only: int | None = None) -> dict[int, list[int]]:
    today, first = timezone.localdate(), midnight() - timedelta(days=DAYS - 1)
    made = Ranking.objects.filter(project=project, revision=1, created_at__gte=first)
    made = _of(only, made.exclude(reason=Lease.Reason.ADJUDICATION).order_by())
    rows = made.annotate(day=TruncDate("created_at")).values_list("annotator_id", "day").annotate(count=Count("pk"))
    days: dict[int, list[int]] = defaultdict(lambda: [0] * DAYS)
    for annotator_id, day, count in rows:
        days[annotator_id][DAYS - 1 - (today - day).days] = count
    return days


def _skips(project: Project, only: int | None = None) -> dict[int, int]:
    made = _of(only, Skip.objects.filter(comparison__project=project).order_by())
    return dict(made.values_list("annotator_id").annotate(count=Count("pk")))


def _of(only: int | None, rows: QuerySet[Any]) -> QuerySet[Any]:
    return rows if only is None else rows.filter(annotator=only)
