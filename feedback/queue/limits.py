"""Limits of a member's rankings: by day, in total, and as a share of the project's work.

What the member holds counts as ranked, so that a limit is never exceeded. Gold counts like real work: otherwise the
numbers would reveal which comparisons were gold.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import NamedTuple

from django.core.cache import cache
from django.db.models import Sum
from django.utils import timezone

from feedback import statements
from feedback.models import Comparison, Membership, Project

WORK_KEPT = 60  # seconds for which a process keeps the amount of work in a project
LIMITS = ("daily_limit", "total_limit", "share_limit")
COUNT = """
    SELECT (
        SELECT count(*) FROM (
            SELECT FROM feedback_ranking
            WHERE annotator_id = %(person)s AND project_id = %(project)s AND is_live AND created_at >= %(since)s
                AND reason <> 'adjudication' AND reason <> 'demonstration'
            LIMIT %(most)s
        ) AS made
    ) + (
        SELECT count(*) FROM feedback_lease
        WHERE annotator_id = %(person)s AND project_id = %(project)s AND lapsed_at IS NULL AND expires_at > %(now)s
    )
"""
ALWAYS = datetime(1, 1, 2, tzinfo=timezone.get_fixed_timezone(0))


class Limit(NamedTuple):
    """A limit of one member, and how much it leaves."""

    name: str  # of LIMITS
    value: int  # rankings; of share_limit percent
    left: int  # rankings, at least 0


def limits_of(membership: Membership) -> Iterator[Limit]:
    """Yield the limits that hold for the member: theirs, or the project's where they have none."""
    for name in LIMITS:
        value = getattr(membership, name)
        value = getattr(membership.project, name) if value is None else value
        if value:
            most = max(1, _work(membership.project) * value // 100) if name == "share_limit" else value
            since = midnight() if name == "daily_limit" else ALWAYS
            yield Limit(name, value, max(0, most - _made(membership, since, most)))


def reached(membership: Membership) -> Limit | None:
    """Return a limit that leaves nothing, if there is one."""
    return next((limit for limit in limits_of(membership) if not limit.left), None)


def midnight() -> datetime:
    """Return the start of today in the local time zone."""
    return timezone.localtime().replace(hour=0, minute=0, second=0, microsecond=0)


def _made(membership: Membership, since: datetime, most: int) -> int:
    """Return how many live rankings the member has made since then, at most `most`, and holds."""
    values = {"person": membership.user_id, "project": membership.project_id, "since": since, "most": most}
    ((count,),) = statements.run(COUNT, values | {"now": timezone.now()})
    return count


def _work(project: Project) -> int:
    """Return how many rankings the project's comparisons want. Counted once a minute, because it reads them all."""
    key = f"work-of-{project.pk}"
    work: int | None = cache.get(key)
    if work is None:
        wanted = Comparison.objects.filter(project=project, gold_ranks__isnull=True).aggregate(
            work=Sum("wanted_rankings")
        )
        work = wanted["work"] or 0
        cache.set(key, work, WORK_KEPT)
    return work
