"""Finding an open comparison that a person may rank, at a cost that does not grow with the project.

The queue's order is the index `comparison_queue`: by priority, then those with most rankings already, then at random
(`shuffle_key`). Usually the first row will do. But a person who has worked for long has ranked the first thousands
themselves while these still wait for others; so each look reads a bounded piece of the index:

1. the head of the queue;
2. the head and a random place of each section (a priority and a number of rankings), in the queue's order;
3. only when all of these hold nothing for this person: the whole queue, so that nobody is sent away while work
   remains.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass

from django.db import connection
from django.db.models import Exists, OuterRef, QuerySet

from feedback.models import Comparison, Completion, Lease, Membership, Ranking, Skip

GLANCE = 20  # rows of the index read first
LOOK = 100  # and then at a time
CLAIMABLE = 10  # candidates of a look: more than one, since others may hold the first ones locked
WAITS = 20

QUEUE_ORDER = ("-priority", "-ranking_count", "shuffle_key")


# The queue's every-day path, a statement each: what they cost does not depend on the project.
HEAD = """
    SELECT id FROM feedback_comparison WHERE project_id = %s AND open_slots > 0 AND gold_ranks IS NULL
    ORDER BY priority DESC, ranking_count DESC, shuffle_key LIMIT %s
"""
LOCKED = """
    SELECT * FROM feedback_comparison WHERE id = ANY(%s) AND open_slots > 0
    ORDER BY priority DESC, ranking_count DESC, shuffle_key LIMIT 1 FOR NO KEY UPDATE
"""
FORBIDDEN = """
    SELECT comparison_id FROM feedback_ranking WHERE annotator_id = %(person)s AND comparison_id = ANY(%(ids)s)
    UNION ALL
    SELECT comparison_id FROM feedback_skip WHERE annotator_id = %(person)s AND comparison_id = ANY(%(ids)s)
    UNION ALL
    SELECT comparison_id FROM feedback_lease
    WHERE annotator_id = %(person)s AND comparison_id = ANY(%(ids)s) AND lapsed_at IS NULL
    UNION ALL
    SELECT item.comparison_id
    FROM feedback_comparisonitem AS item JOIN feedback_completion AS completion ON completion.id = item.completion_id
    WHERE completion.author_id = %(person)s AND item.comparison_id = ANY(%(ids)s)
"""


@dataclass(frozen=True)
class Section:
    """Open comparisons with the same priority and as many rankings."""

    priority: int
    ranking_count: int


def claim(membership: Membership, *, may_wait: bool = True) -> Comparison | None:
    """The first comparison that this member may rank, locked; its open slot is not yet taken.

    Unless it `may_wait`, what others hold locked is passed over, and None does not mean that nothing is left.
    """
    for ids in _looks(membership):
        # The slot is checked again under the lock; what concerns this person cannot change, their membership is
        # locked by the caller.
        if locked := _locked(ids, wait=False):
            return locked
    return _wait_for_one(membership) if may_wait else None


def _wait_for_one(membership: Membership) -> Comparison | None:
    """When others hold all that is left locked: wait for one of them, rather than say that nothing is left."""
    for _ in range(WAITS):
        ids = permitted(_queue(membership), membership).values_list("pk", flat=True)[:1]
        if not ids:
            return None
        if locked := _locked(list(ids), wait=True):
            return locked
    return None


def _locked(ids: list[int], *, wait: bool) -> Comparison | None:
    if not ids:
        return None
    return next(iter(Comparison.objects.raw(LOCKED + ("" if wait else " SKIP LOCKED"), [ids])), None)


def _queue(membership: Membership) -> QuerySet[Comparison]:
    waiting = Comparison.objects.filter(open_slots__gt=0, gold_ranks__isnull=True)
    return waiting.filter(project_id=membership.project_id).order_by(*QUEUE_ORDER)


def _looks(membership: Membership) -> Iterator[list[int]]:
    """Ids of comparisons to claim, best first."""
    queue = _queue(membership)
    yield _permitted_of(_head(membership.project_id), membership)
    for section in sections(membership.project_id):
        part = queue.filter(priority=section.priority, ranking_count=section.ranking_count)
        for piece in (part, part.filter(shuffle_key__gte=random.random())):
            yield _permitted_of(list(piece.values_list("pk", flat=True)[:LOOK]), membership)
    yield list(permitted(queue, membership).values_list("pk", flat=True)[:CLAIMABLE])


def permitted(comparisons: QuerySet[Comparison], membership: Membership) -> QuerySet[Comparison]:
    """Real work that this person may do: without gold, which comes to them in its own way, and see `unseen`."""
    return unseen(comparisons.filter(gold_ranks__isnull=True), membership)


def unseen(comparisons: QuerySet[Comparison], membership: Membership) -> QuerySet[Comparison]:
    """Without what this person ranked, skipped or holds, and without completions that they wrote."""
    mine = {"comparison": OuterRef("pk"), "annotator": membership.user_id}
    wrote = Completion.objects.filter(author=membership.user_id, items__comparison=OuterRef("pk"))
    return comparisons.filter(
        ~Exists(Ranking.objects.filter(**mine)),
        ~Exists(Skip.objects.filter(**mine)),
        ~Exists(Lease.objects.filter(lapsed_at__isnull=True, **mine)),
        ~Exists(wrote),
    )


def _head(project_id: int) -> list[int]:
    """The queue's first ids."""
    with connection.cursor() as cursor:
        cursor.execute(HEAD, [project_id, GLANCE])
        return [pk for (pk,) in cursor.fetchall()]


def _permitted_of(ids: list[int], membership: Membership) -> list[int]:
    """The first of these ids that are permitted: the same rule as `permitted`, in a statement planned in no time."""
    with connection.cursor() as cursor:
        cursor.execute(FORBIDDEN, {"person": membership.user_id, "ids": ids})
        forbidden = {pk for (pk,) in cursor.fetchall()}
    return [pk for pk in ids if pk not in forbidden][:CLAIMABLE]


def sections(project_id: int) -> list[Section]:
    """The queue's sections in its order, by hopping through the index from one to the next."""
    hop = """
        WITH RECURSIVE section AS (
            (SELECT priority, ranking_count FROM feedback_comparison
             WHERE project_id = %(project)s AND open_slots > 0 AND gold_ranks IS NULL
             ORDER BY priority DESC, ranking_count DESC LIMIT 1)
            UNION ALL
            SELECT following.priority, following.ranking_count FROM section, LATERAL (
                SELECT priority, ranking_count FROM feedback_comparison
                WHERE project_id = %(project)s AND open_slots > 0 AND gold_ranks IS NULL
                    AND (priority, ranking_count) < (section.priority, section.ranking_count)
                ORDER BY priority DESC, ranking_count DESC LIMIT 1
            ) AS following
        )
        SELECT priority, ranking_count FROM section
    """
    with connection.cursor() as cursor:
        cursor.execute(hop, {"project": project_id})
        return [Section(*row) for row in cursor.fetchall()]
