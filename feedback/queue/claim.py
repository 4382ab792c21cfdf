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

from django.db.models import Exists, OuterRef, QuerySet

from feedback import statements
from feedback.models import Comparison, Completion, Lease, Membership, Prompt, Ranking, Skip

GLANCE = 20  # rows of the index read first
LOOK = 100  # and then at a time
CLAIMABLE = 10  # candidates of a look: more than one, since others may hold the first ones locked
WAITS = 20

QUEUE_ORDER = ("-priority", "-ranking_count", "shuffle_key")


# What `permitted` says, of the rows of `look`. `+ 0` keeps the planner from all that this person ever did, which it
# takes for little when its figures are old; a comparison's own rows are always few. `OFFSET 0`, from a join.
MAY_RANK = """
    NOT EXISTS (SELECT FROM feedback_ranking WHERE comparison_id = look.id AND annotator_id + 0 = %(person)s OFFSET 0)
    AND NOT EXISTS (SELECT FROM feedback_skip WHERE comparison_id = look.id AND annotator_id + 0 = %(person)s OFFSET 0)
    AND NOT EXISTS (
        SELECT FROM feedback_lease
        WHERE comparison_id = look.id AND annotator_id + 0 = %(person)s AND lapsed_at IS NULL OFFSET 0)
    AND NOT EXISTS (
        SELECT FROM feedback_comparisonitem AS item
        JOIN feedback_completion AS completion ON completion.id = item.completion_id
        WHERE item.comparison_id = look.id AND completion.author_id + 0 = %(person)s OFFSET 0)
"""
# The first comparison of a look that this person may rank loses a slot, and comes with all that is shown of it.
TAKE = f"""
    WITH chosen AS MATERIALIZED (
        SELECT comparison.id
        FROM ({{look}}) AS look JOIN feedback_comparison AS comparison ON comparison.id = look.id
        WHERE comparison.open_slots > 0 AND {MAY_RANK}
        ORDER BY look.priority DESC, look.ranking_count DESC, look.shuffle_key LIMIT 1
        FOR NO KEY UPDATE OF comparison {{others}}
    )
    UPDATE feedback_comparison AS comparison SET open_slots = comparison.open_slots - 1
    FROM chosen, feedback_prompt AS prompt WHERE comparison.id = chosen.id AND prompt.id = comparison.prompt_id
    RETURNING {statements.columns(Comparison, "comparison")}, {statements.columns(Prompt, "prompt")}, ARRAY(
        SELECT text FROM feedback_comparisonitem AS item
        JOIN feedback_completion AS completion ON completion.id = item.completion_id
        WHERE item.comparison_id = comparison.id ORDER BY position)
"""
# KEY SHARE: what is peeked at is about to be referred to, and the undo of an import may be deleting it.
PEEK = f"""
    SELECT look.id
    FROM ({{look}}) AS look JOIN feedback_comparison AS comparison ON comparison.id = look.id
    WHERE {MAY_RANK}
    ORDER BY look.priority DESC, look.ranking_count DESC, look.shuffle_key LIMIT 1
    FOR KEY SHARE OF comparison SKIP LOCKED
"""
KEYS = "SELECT id, priority, ranking_count, shuffle_key FROM feedback_comparison"
HEAD = f"""
    {KEYS} WHERE project_id = %(project)s AND open_slots > 0 AND gold_ranks IS NULL
    ORDER BY priority DESC, ranking_count DESC, shuffle_key LIMIT {{most}}
"""
NAMED = f"{KEYS} WHERE id = ANY(%(ids)s::bigint[])"


@dataclass(frozen=True)
class Section:
    """Open comparisons with the same priority and as many rankings."""

    priority: int
    ranking_count: int


def claim(membership: Membership, *, may_wait: bool = True) -> Comparison | None:
    """The first comparison that this member may rank, locked, one of its open slots taken; its prompt is loaded.

    Unless it `may_wait`, what others hold locked is passed over, and None does not mean that nothing is left.
    """
    # The slot is checked again under the lock; what concerns this person cannot change, their membership is locked by
    # the caller.
    if taken := _take(membership, HEAD.format(most=GLANCE)):
        return taken
    for ids in _further_looks(membership):
        if ids and (taken := _take(membership, NAMED, ids)):
            return taken
    return _wait_for_one(membership) if may_wait else None


def first(membership: Membership) -> int | None:
    """Return the id of what `claim` would give, were nothing locked by others."""
    given = {"person": membership.user_id, "project": membership.project_id, "ids": None}
    if rows := statements.run(PEEK.format(look=HEAD.format(most=GLANCE)), given):
        return rows[0][0]
    for ids in _further_looks(membership):
        if ids and (rows := statements.run(PEEK.format(look=NAMED), given | {"ids": ids})):
            return rows[0][0]
    return None


def _wait_for_one(membership: Membership) -> Comparison | None:
    """When others hold all that is left locked: wait for one of them, rather than say that nothing is left."""
    for _ in range(WAITS):
        ids = permitted(_queue(membership), membership).values_list("pk", flat=True)[:1]
        if not ids:
            return None
        if taken := _take(membership, NAMED, list(ids), others=""):
            return taken
    return None


def _take(
    membership: Membership, look: str, ids: list[int] | None = None, others: str = "SKIP LOCKED"
) -> Comparison | None:
    given = {"person": membership.user_id, "project": membership.project_id, "ids": ids}
    (row,) = statements.run(TAKE.format(look=look, others=others), given) or (None,)
    if row is None:
        return None
    end = statements.width(Comparison)
    comparison = statements.build(Comparison, row[:end])
    comparison.prompt = statements.build(Prompt, row[end:-1])
    comparison.known_texts = row[-1]
    return comparison


def _queue(membership: Membership) -> QuerySet[Comparison]:
    waiting = Comparison.objects.filter(open_slots__gt=0, gold_ranks__isnull=True)
    return waiting.filter(project_id=membership.project_id).order_by(*QUEUE_ORDER)


def _further_looks(membership: Membership) -> Iterator[list[int]]:
    """Ids of comparisons to claim, best first, where the head of the queue holds nothing for this person."""
    queue = _queue(membership)
    for section in sections(membership.project_id):
        part = queue.filter(priority=section.priority, ranking_count=section.ranking_count)
        for piece in (part, part.filter(shuffle_key__gte=random.random())):
            yield list(piece.values_list("pk", flat=True)[:LOOK])
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
    return [Section(*row) for row in statements.run(hop, {"project": project_id})]
