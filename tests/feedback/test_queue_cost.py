"""Leasing and submitting read few rows, however many comparisons there are, according to the query plans."""

import json
from uuid import uuid4

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from feedback import imports, statements
from feedback.actions import rankings
from feedback.export import ranking_record
from feedback.models import Comparison, Completion
from feedback.queue import leases as queue

pytestmark = [pytest.mark.slow, pytest.mark.django_db]

COMPARISONS = 20_000
LARGE = {"feedback_comparison", "feedback_comparisonitem", "feedback_ranking", "feedback_lease", "feedback_prompt"}


@pytest.fixture
def many(project):
    """Write many comparisons of the same two completions without the triggers, which would take minutes."""
    (ids,) = imports.add_prompts(project, [{"prompt": "x", "completions": ["a", "b"]}]).completion_ids
    prompt_id = Completion.objects.get(pk=ids[0]).prompt_id
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL session_replication_role = replica")
        cursor.execute(
            """INSERT INTO feedback_comparison (project_id, prompt_id, size, wanted_rankings, open_slots,
                   ranking_count, extra_rankings, priority, shuffle_key, created_at)
               SELECT %s, %s, 2, 3, 3, 0, 0, 0, random(), now() FROM generate_series(1, %s)""",
            [project.pk, prompt_id, COMPARISONS],
        )
        cursor.execute(
            """INSERT INTO feedback_comparisonitem (comparison_id, prompt_id, completion_id, position, digest)
               SELECT comparison.id, prompt_id, completion.id, completion.place - 1, completion.digest
               FROM feedback_comparison AS comparison, (
                   SELECT id, digest, row_number() OVER (ORDER BY id) AS place
                   FROM feedback_completion WHERE id = ANY(%s)
               ) AS completion""",
            [ids],
        )
        cursor.execute("SET LOCAL session_replication_role = DEFAULT")
        cursor.execute("ANALYZE")
    return project


def rank_many(project, annotator, count, analyze=True):
    """Write the annotator's rankings of the first comparisons of the queue, which still want two more."""
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL session_replication_role = replica")
        cursor.execute(
            """WITH ranked AS (
                   UPDATE feedback_comparison SET ranking_count = 1, open_slots = 2 WHERE id IN (
                       SELECT id FROM feedback_comparison WHERE project_id = %s ORDER BY shuffle_key LIMIT %s)
                   RETURNING id, project_id)
               INSERT INTO feedback_ranking (project_id, comparison_id, annotator_id, size, ranks, display_order,
                   seconds, comment, flags, ratings, spans, reason, idempotency_key, revision, is_live, created_at)
               SELECT project_id, id, %s, 2, '{1,2}', '{0,1}', 1, '', '{}', '{}', '[]', 'sampled', gen_random_uuid(), 1,
                   true, now()
               FROM ranked""",
            [project.pk, count, annotator.pk],
        )
        cursor.execute("SET LOCAL session_replication_role = DEFAULT")
        if analyze:
            cursor.execute("ANALYZE")


def nodes(plan):
    yield plan
    for child in plan.get("Plans", []):
        yield from nodes(child)


@pytest.fixture
def rows_touched(monkeypatch):
    """Return a function that runs code and returns the most rows that one scan of a large table read."""
    plans = []
    run = statements.run

    def explained(statement, parameters):
        with transaction.atomic():  # undone: the statement runs once more, for good
            plans.append(run("EXPLAIN (ANALYZE, FORMAT JSON) " + statement, parameters)[0][0])
            transaction.set_rollback(True)
        return run(statement, parameters)

    def measure(act):
        plans.clear()
        with CaptureQueriesContext(connection) as captured:
            act()
        for query in captured.captured_queries:  # the ORM's; what `statements` runs has its values elsewhere
            sql = query["sql"] or ""
            if sql.lstrip().upper().startswith(("SELECT", "WITH")) and "$1" not in sql:
                plans.extend(run("EXPLAIN (ANALYZE, FORMAT JSON) " + sql.replace("%", "%%"), [])[0])
        return max(most_rows(plan) for plan in plans)

    monkeypatch.setattr(statements, "run", explained)
    return measure


def most_rows(answer):
    found = [0]
    for node in nodes((json.loads(answer) if isinstance(answer, str) else answer)[0]["Plan"]):
        if node.get("Relation Name") in LARGE:
            found.append((node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"])
    return max(found)


def test_the_next_comparison_is_read_off_the_index(many, ann, rows_touched):
    assert rows_touched(lambda: queue.lease_next(ann)) <= 40  # a glance of 20, and the completions of each


def test_a_submit_touches_its_own_rows_alone(many, ann, rows_touched):
    lease = queue.lease_next(ann)
    submit = lambda: rankings.record_ranking(ann, lease.pk, [1, 2], idempotency_key=uuid4(), seconds=1.0)  # noqa: E731
    assert rows_touched(submit) <= 5


@pytest.mark.parametrize("analyze", [True, False], ids=["", "and the planner does not know"])
def test_leasing_stays_fast_for_an_annotator_who_ranked_thousands_of_open_comparisons(many, ann, rows_touched, analyze):
    rank_many(many, ann.user, 5_000, analyze)
    leases = []
    assert rows_touched(lambda: leases.append(queue.lease_next(ann))) <= 200
    assert leases[0].comparison.ranking_count == 0


def test_a_submit_with_the_next_one_reads_as_little(many, ann, rows_touched):
    lease = queue.lease_next(ann)
    given = {"beside": [lease.pk], "idempotency_key": uuid4(), "seconds": 1.0}
    following = []
    submit = lambda: following.append(rankings.record_ranking_and_lease(ann, lease.pk, [1, 2], **given)[1])  # noqa: E731
    assert rows_touched(submit) <= 40
    assert following[0].comparison_id != lease.comparison_id


def test_comparisons_ranked_once_come_first_for_the_next_annotator(many, ann, cole):
    rank_many(many, ann.user, 5_000)
    assert queue.lease_next(cole).comparison.ranking_count == 1


def test_a_page_of_the_export_reads_its_own_rankings_alone(many, ann, monkeypatch, rows_touched):
    rank_many(many, ann.user, 2_000)
    monkeypatch.setattr(ranking_record, "PAGE_SIZE", 100)
    until = ranking_record.sequence_cutoff(many)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")
    rows = ranking_record.rankings(many, after=1_000, until=until)
    assert rows_touched(lambda: next(rows)) <= 400
    assert Comparison.objects.count() == COMPARISONS
