"""Next and submit touch a few rows by index, however many comparisons there are: read from the query plans."""

import json
from uuid import uuid4

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from feedback import export, intake, judging, queue
from feedback.models import Comparison, Completion

pytestmark = pytest.mark.django_db

COMPARISONS = 20_000
LARGE = {"feedback_comparison", "feedback_comparisonitem", "feedback_ranking", "feedback_lease", "feedback_prompt"}


@pytest.fixture
def many(project):
    """Many comparisons of the same two completions, written past the triggers, which would take minutes."""
    (ids,) = intake.add_prompts(project, [{"prompt": "x", "completions": ["a", "b"]}]).completion_ids
    prompt_id = Completion.objects.get(pk=ids[0]).prompt_id
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL session_replication_role = replica")
        cursor.execute(
            """INSERT INTO feedback_comparison (project_id, prompt_id, size, wanted_rankings, open_slots,
                   ranking_count, extra_opinions, priority, shuffle_key, created_at)
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


def rank_many(project, annotator, count):
    """The annotator's own rankings of the first comparisons of the queue, which still want two more."""
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
        cursor.execute("ANALYZE")


def nodes(plan):
    yield plan
    for child in plan.get("Plans", []):
        yield from nodes(child)


def rows_touched(act):
    """Run `act`, then explain its SELECTs: the most rows that one scan of a large table read."""
    with CaptureQueriesContext(
        connection,
    ) as captured:
        act()
    most = 0
    for query in captured.captured_queries:
        if not query["sql"].lstrip().upper().startswith(("SELECT", "WITH")):
            continue
        with connection.cursor() as cursor:
            cursor.execute("EXPLAIN (ANALYZE, FORMAT JSON) " + query["sql"])
            answer = cursor.fetchone()[0]
        plan = (json.loads(answer) if isinstance(answer, str) else answer)[0]["Plan"]
        for node in nodes(plan):
            if node.get("Relation Name") in LARGE:
                read = node["Actual Rows"] + node.get("Rows Removed by Filter", 0)
                most = max(most, read * node["Actual Loops"])
    return most


def test_the_next_comparison_is_read_off_the_index(many, ann):
    assert rows_touched(lambda: queue.lease_next(ann)) <= 40  # a glance of 20, and the completions of each


def test_a_submit_touches_its_own_rows_alone(many, ann):
    lease = queue.lease_next(ann)
    submit = lambda: judging.record(ann, lease.pk, [1, 2], idempotency_key=uuid4(), seconds=1.0)  # noqa: E731
    assert rows_touched(submit) <= 5


def test_one_who_ranked_thousands_still_waiting_for_others_is_served_as_fast(many, ann):
    rank_many(many, ann.user, 5_000)
    leases = []
    assert rows_touched(lambda: leases.append(queue.lease_next(ann))) <= 200
    assert leases[0].comparison.ranking_count == 0


def test_the_thousands_are_the_next_annotators_first(many, ann, cole):
    rank_many(many, ann.user, 5_000)
    assert queue.lease_next(cole).comparison.ranking_count == 1


def test_a_page_of_the_export_reads_its_own_rankings_alone(many, ann, monkeypatch):
    rank_many(many, ann.user, 2_000)
    monkeypatch.setattr(export, "PAGE", 100)
    until = export.sequence_cutoff(many)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")
    rows = export.rankings(many, after=1_000, until=until)
    assert rows_touched(lambda: next(rows)) <= 400
    assert Comparison.objects.count() == COMPARISONS
