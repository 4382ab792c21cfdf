"""Comparisons by the million, written by SQL without triggers, which would take an hour to check them.

Each has its own prompt of thirty words and two completions of sixty words.
"""

from django.db import connection, transaction

PROMPTS = """
    INSERT INTO feedback_prompt (project_id, messages, digest, split, "references", metadata, created_at)
    SELECT %(project)s, messages, encode(sha256(convert_to(messages::text, 'UTF8')), 'hex'), 'train', '[]', '{}', now()
    FROM (
        SELECT jsonb_build_array(jsonb_build_object(
            'role', 'user', 'content', 'prompt ' || i || ' ' || repeat('x ', 30))) AS messages
        FROM generate_series(1, %(count)s) AS i
    ) AS made"""
COMPLETIONS = """
    INSERT INTO feedback_completion (prompt_id, source_id, text, digest, sampling, created_at)
    SELECT prompt_id, %(source)s, text, encode(sha256(convert_to(text, 'UTF8')), 'hex'), '{}', now()
    FROM (
        SELECT prompt.id AS prompt_id, letter || ' ' || prompt.id || ' ' || repeat('word ', 60) AS text
        FROM feedback_prompt AS prompt, unnest(ARRAY['a', 'b']) AS letter
        WHERE project_id = %(project)s
    ) AS made"""
COMPARISONS = """
    INSERT INTO feedback_comparison (project_id, prompt_id, size, wanted_rankings, open_slots, ranking_count,
        extra_rankings, priority, shuffle_key, created_at)
    SELECT project_id, id, 2, %(wanted)s, %(wanted)s, 0, 0, 0, random(), now()
    FROM feedback_prompt WHERE project_id = %(project)s"""
ITEMS = """
    INSERT INTO feedback_comparisonitem (comparison_id, prompt_id, completion_id, position, digest)
    SELECT comparison.id, completion.prompt_id, completion.id,
           CASE WHEN completion.text LIKE 'a%%' THEN 0 ELSE 1 END, completion.digest
    FROM feedback_comparison AS comparison JOIN feedback_completion AS completion USING (prompt_id)
    WHERE comparison.project_id = %(project)s"""


def write(project: int, source: int, count: int, wanted: int) -> None:
    """Write `count` open comparisons that want `wanted` rankings each. Needs a database superuser."""
    named = {"project": project, "source": source, "count": count, "wanted": wanted}
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL session_replication_role = replica")
        for statement in (PROMPTS, COMPLETIONS, COMPARISONS, ITEMS):
            cursor.execute(statement, named)
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE")
