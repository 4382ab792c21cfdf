"""Claim an open comparison that a member may rank, at a cost that does not grow with the project.

The order of the queue is that of the index `comparison_queue`: by priority, then by number of rankings (most first),
then at random (`shuffle_key`). Usually the first row fits. But an annotator who has worked for long has ranked the
first thousands of rows, which still wait for others. So a claim reads bounded pieces of the index, one after the other:

1. the head of the queue;
2. the head and a random place of each section (a priority and a number of rankings), in the order of the queue;
3. the whole queue, only if these pieces have nothing for the member, so that everybody gets work while any is left.

Where routing rules keep prompts from members, the order begins with the route of a comparison (its prompt's tags that
rules name), so that each route has a head and sections of its own. A claim reads those of the routes that are open to
the member, and merges them in the order of the queue. Without rules there is one route.

The comparisons of the open trial are a queue of their own, with the index `comparison_trial_queue`. The next comparison
is the first that the member may rank of one of the two queues; `blinding.is_trial_first` draws which. If one has
nothing for the member, the other one serves. Without an open trial the statements are those of one queue.
"""

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from django.db.models import BooleanField, QuerySet
from django.db.models.expressions import RawSQL

from feedback import statements
from feedback.dialogues import answer_of
from feedback.models import Comparison, Membership, Prompt, Trial
from feedback.queue import blinding

HEAD_SIZE = 20  # rows of the index read first
LOOK_SIZE = 100  # rows read at a time after that
MAX_CANDIDATES = 10  # of the whole queue: more than one, since others may have locked the first ones
MAX_WAITS = 20

QUEUE_ORDER = ("-priority", "-ranking_count", "shuffle_key")

# A person may not rank what they ranked, skipped or hold, nor completions that they wrote, nor prompts with a tag that
# the routing rules keep from them. The only copy of this rule.
RULE = """
    NOT EXISTS (
        SELECT FROM feedback_ranking WHERE comparison_id = {comparison} AND annotator_id{no_index} = {person}{no_join})
    AND NOT EXISTS (
        SELECT FROM feedback_skip WHERE comparison_id = {comparison} AND annotator_id{no_index} = {person}{no_join})
    AND NOT EXISTS (
        SELECT FROM feedback_lease
        WHERE comparison_id = {comparison} AND annotator_id{no_index} = {person} AND lapsed_at IS NULL{no_join})
    AND NOT EXISTS (
        SELECT FROM feedback_comparisonitem AS item
        JOIN feedback_completion AS completion ON completion.id = item.completion_id
        WHERE item.comparison_id = {comparison} AND completion.author_id{no_index} = {person}{no_join})
    AND (cardinality({barred}::text[]) = 0 OR NOT EXISTS (
        SELECT FROM feedback_comparison AS routed JOIN feedback_prompt AS prompt ON prompt.id = routed.prompt_id
        WHERE routed.id = {comparison} AND accord_tags(prompt.metadata) && {barred}::text[]{no_join}))
"""
# The rule for the few rows of `look`. `+ 0` keeps the planner from the indexes by annotator: with old statistics it
# takes all that a person ever ranked for a few rows. `OFFSET 0` keeps it from a join, which would read them all, too.
MAY_RANK = RULE.format(
    comparison="look.id", person="%(person)s", barred="%(barred)s", no_index=" + 0", no_join=" OFFSET 0"
)
# The rule for a query of the ORM over many comparisons, for which a join is the better plan.
MAY_RANK_ANY = RULE.format(
    comparison="feedback_comparison.id", person="%(person)s", barred="%(barred)s", no_index="", no_join=""
)
ITEMS = """FROM feedback_comparisonitem AS item
        JOIN feedback_completion AS completion ON completion.id = item.completion_id
        WHERE item.comparison_id = comparison.id ORDER BY position"""
# Take a slot of the first comparison of `look` that the person may rank, and return all that the page shows of it.
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
    RETURNING {statements.columns(Comparison, "comparison")}, {statements.columns(Prompt, "prompt")},
        ARRAY(SELECT text {ITEMS}), ARRAY(SELECT turns::text {ITEMS})
"""
PEEK = f"""
    SELECT look.id
    FROM ({{look}}) AS look JOIN feedback_comparison AS comparison ON comparison.id = look.id
    WHERE {MAY_RANK}
    ORDER BY look.priority DESC, look.ranking_count DESC, look.shuffle_key LIMIT 1 {{lock}}
"""
IN_ORDER = "ORDER BY priority DESC, ranking_count DESC, shuffle_key"
KEYS = "SELECT id, priority, ranking_count, shuffle_key FROM feedback_comparison"
IS_BARRED = """
    SELECT EXISTS (
        SELECT FROM feedback_comparison AS routed JOIN feedback_prompt AS prompt ON prompt.id = routed.prompt_id
        WHERE routed.id = %s AND accord_tags(prompt.metadata) && %s::text[])"""
NAMED = f"{KEYS} WHERE id = ANY(%(ids)s::bigint[])"


@dataclass(frozen=True)
class Queue:
    """Open comparisons of a project in the order of an index, whose condition is in `condition`."""

    condition: str  # SQL
    is_of_trial: bool

    @property
    def head(self) -> str:
        """Return the statement for the first comparisons without a route: of a project without rules, all."""
        return self._head("''")

    @property
    def head_of_routes(self) -> str:
        """Return the statement for the first comparisons of the routes `%(routes)s`, merged."""
        return f"""
            SELECT head.* FROM unnest(%(routes)s::text[]) AS one(route), LATERAL ({self._head("one.route")}) AS head
            {IN_ORDER} LIMIT {HEAD_SIZE}"""

    @property
    def routes(self) -> str:
        """Return the statement for the routes of the queue. It reads one row of the index per route."""
        first = f"SELECT route FROM feedback_comparison WHERE {self.condition}"
        return f"""
            WITH RECURSIVE found AS (
                ({first} ORDER BY route LIMIT 1)
                UNION ALL
                SELECT following.route FROM found, LATERAL (
                    {first} AND route > found.route ORDER BY route LIMIT 1) AS following
            )
            SELECT route FROM found"""

    def _head(self, route: str) -> str:
        return f"{KEYS} WHERE {self.condition} AND route = {route} {IN_ORDER} LIMIT {HEAD_SIZE}"

    def comparisons(self, project_id: int) -> QuerySet[Comparison]:
        waiting = Comparison.objects.filter(open_slots__gt=0, gold_ranks__isnull=True)
        if self.is_of_trial:
            open_trial = Trial.objects.filter(project=project_id, ended_at__isnull=True).values("pk")[:1]
            return waiting.filter(trial=open_trial).order_by(*QUEUE_ORDER)
        return waiting.filter(project=project_id, trial__isnull=True).order_by(*QUEUE_ORDER)


WORK = Queue("project_id = %(project)s AND open_slots > 0 AND gold_ranks IS NULL AND trial_id IS NULL", False)
TRIAL = Queue(
    "trial_id = (SELECT id FROM feedback_trial WHERE project_id = %(project)s AND ended_at IS NULL)"
    " AND trial_id IS NOT NULL AND open_slots > 0",
    True,
)


@dataclass(frozen=True)
class Section:
    """Open comparisons of a queue with the same route, the same priority and the same number of rankings."""

    priority: int
    ranking_count: int
    route: str = ""


def claim(membership: Membership, *, may_wait: bool = True) -> Comparison | None:
    """Lock the first comparison that this member may rank, and take one of its open slots. Its prompt is loaded.

    The caller has locked the membership. Without `may_wait`, comparisons that others have locked are passed over, and
    None does not mean that nothing is left.
    """
    # The open slot is checked again under the lock. The rule is not: nothing of this member's can change meanwhile,
    # because the membership is locked.
    queues = _queues(membership)
    for queue in queues:
        if taken := _claim_from(membership, queue):
            return taken
    return _wait_for_one(membership, queues) if may_wait else None


def first_in_queue(membership: Membership) -> int | None:
    """Return the id of the comparison that `claim` would return if others had locked nothing."""
    for queue in _queues(membership):
        # KEY SHARE: the caller stores a reference to the comparison, which the undo of an import may be deleting.
        if (first := _peek(membership, queue, lock="FOR KEY SHARE OF comparison SKIP LOCKED")) is not None:
            return first
    return None


def _queues(membership: Membership) -> list[Queue]:
    """Return the queues in the order in which the member gets work from them."""
    project = membership.project
    if not project.trial_percent:
        return [WORK]
    of_trial, other = _peek(membership, TRIAL), _peek(membership, WORK)
    if of_trial is None or other is None:
        return [WORK, TRIAL] if of_trial is None else [TRIAL, WORK]
    is_trial_first = blinding.is_trial_first(project, membership.user_id, of_trial, other)
    return [TRIAL, WORK] if is_trial_first else [WORK, TRIAL]


def _peek(membership: Membership, queue: Queue, lock: str = "") -> int | None:
    """Return the id of the first comparison of a queue that the member may rank."""
    routes = routes_for(membership, queue)
    values = {**parameters(membership), "ids": None, "routes": routes}
    if rows := statements.run(PEEK.format(look=_head(membership, queue), lock=lock), values):
        return rows[0][0]
    for ids in _further_candidates(membership, queue, routes):
        if ids and (rows := statements.run(PEEK.format(look=NAMED, lock=lock), values | {"ids": ids})):
            return rows[0][0]
    return None


def _claim_from(membership: Membership, queue: Queue) -> Comparison | None:
    routes = routes_for(membership, queue)
    if taken := _take(membership, _head(membership, queue), routes=routes):
        return taken
    for ids in _further_candidates(membership, queue, routes):
        if ids and (taken := _take(membership, NAMED, ids)):
            return taken
    return None


def _wait_for_one(membership: Membership, queues: list[Queue]) -> Comparison | None:
    """Wait for a comparison that others have locked, instead of reporting that nothing is left."""
    for _ in range(MAX_WAITS):
        locked = (permitted(queue.comparisons(membership.project_id), membership) for queue in queues)
        ids = next((ids for rows in locked if (ids := list(rows.values_list("pk", flat=True)[:1]))), None)
        if not ids:
            return None
        if taken := _take(membership, NAMED, ids, others=""):
            return taken
    return None


def _take(
    membership: Membership,
    look: str,
    ids: list[int] | None = None,
    others: str = "SKIP LOCKED",
    routes: list[str] | None = None,
) -> Comparison | None:
    values = {**parameters(membership), "ids": ids, "routes": routes}
    (row,) = statements.run(TAKE.format(look=look, others=others), values) or (None,)
    if row is None:
        return None
    end = statements.width(Comparison)
    comparison = statements.build(Comparison, row[:end])
    comparison.prompt = statements.build(Prompt, row[end:-2])
    comparison.known_answers = [answer_of(*answer) for answer in zip(*row[-2:], strict=True)]
    return comparison


def parameters(membership: Membership) -> dict[str, Any]:
    """Return the parameters of MAY_RANK, and the project."""
    return {"person": membership.user_id, "project": membership.project_id, "barred": membership.barred_tags}


def routes_for(membership: Membership, queue: Queue) -> list[str]:
    """Return the routes of the queue that the routing rules leave to this member."""
    if not membership.project.routed_tags:
        return [""]
    barred = set(membership.barred_tags)
    rows = statements.run(queue.routes, {"project": membership.project_id})
    return [route for (route,) in rows if barred.isdisjoint(route.split("\n"))]


def _head(membership: Membership, queue: Queue) -> str:
    return queue.head_of_routes if membership.project.routed_tags else queue.head


def _further_candidates(membership: Membership, queue: Queue, routes: Sequence[str]) -> Iterator[list[int]]:
    """Yield ids of comparisons to try, piece by piece, if the head of the queue has nothing for this member."""
    comparisons = queue.comparisons(membership.project_id)
    for section in sections(membership.project_id, queue, routes):
        part = comparisons.filter(route=section.route, priority=section.priority, ranking_count=section.ranking_count)
        for piece in (part, part.filter(shuffle_key__gte=random.random())):
            yield list(piece.values_list("pk", flat=True)[:LOOK_SIZE])
    if not membership.project.routed_tags:  # the index has the order of the queue within a route
        comparisons = comparisons.filter(route="")
    yield list(permitted(comparisons, membership).values_list("pk", flat=True)[:MAX_CANDIDATES])


def permitted(comparisons: QuerySet[Comparison], membership: Membership) -> QuerySet[Comparison]:
    """Keep the comparisons that this member may rank, without gold, which `gold.py` claims."""
    named = parameters(membership)
    ordered = [named[name] for name in re.findall(r"%\((\w+)\)s", MAY_RANK_ANY)]
    may_rank = RawSQL(re.sub(r"%\(\w+\)s", "%s", MAY_RANK_ANY), ordered, output_field=BooleanField())
    return comparisons.filter(may_rank, gold_ranks__isnull=True)


def may_rank_prompt_of(membership: Membership, comparison_id: int) -> bool:
    """Return whether the routing rules leave this comparison to the member."""
    if not membership.barred_tags:
        return True
    ((is_barred,),) = statements.run(IS_BARRED, [comparison_id, membership.barred_tags])
    return not is_barred


def sections(project_id: int, queue: Queue = WORK, routes: Sequence[str] = ("",)) -> list[Section]:
    """Return the sections of routes in the order of the queue."""
    of_routes = [section for route in routes for section in _sections_of_route(project_id, queue, route)]
    return sorted(of_routes, key=lambda section: (-section.priority, -section.ranking_count))


def _sections_of_route(project_id: int, queue: Queue, route: str) -> list[Section]:
    """Return the sections of a route in its order. The recursive query reads one row of the index per section."""
    condition = f"{queue.condition} AND route = %(route)s"
    hop = f"""
        WITH RECURSIVE section AS (
            (SELECT priority, ranking_count FROM feedback_comparison WHERE {condition}
             ORDER BY priority DESC, ranking_count DESC LIMIT 1)
            UNION ALL
            SELECT following.priority, following.ranking_count FROM section, LATERAL (
                SELECT priority, ranking_count FROM feedback_comparison
                WHERE {condition} AND (priority, ranking_count) < (section.priority, section.ranking_count)
                ORDER BY priority DESC, ranking_count DESC LIMIT 1
            ) AS following
        )
        SELECT priority, ranking_count FROM section
    """
    rows = statements.run(hop, {"project": project_id, "route": route})
    return [Section(priority, ranking_count, route) for priority, ranking_count in rows]
