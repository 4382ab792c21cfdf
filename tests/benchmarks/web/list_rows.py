"""A million rows of every kind for the lists of all data, written by SQL without triggers.

Words follow Zipf's law. The word `in30` is in 30 % of the texts, `in10`, `in3`, `in1` and `in01` in 10 %, 3 %, 1 % and
0.1 %, in this order within a text and one after the other, so the phrase "in30 in10" occurs and "in10 in30" does not.
"""

from django.db import connection, transaction

SOURCES = 10
PEOPLE = 20
SHARES = {"in30": 0.3, "in10": 0.1, "in3": 0.03, "in1": 0.01, "in01": 0.001}
MARKERS = " || ".join(f"CASE WHEN random() < {share} THEN '{word} ' ELSE '' END" for word, share in SHARES.items())


def words(count: int) -> str:
    """Return SQL for a text of `count` words of 20,000 in which `i` occurs, with the words of SHARES in the middle."""
    half = (
        "(SELECT string_agg('w' || floor(exp(random() * ln(20000)))::int, ' ') || ' '"
        f" FROM generate_series(1, {count // 2} + 0 * i))"
    )
    return f"{half} || {MARKERS} || {half}"


AGO = "now() - (%(count)s - i) * interval '7 seconds'"
STATEMENTS = {
    "prompts": f"""
        INSERT INTO feedback_prompt (id, project_id, messages, digest, split, "references", metadata, created_at)
        SELECT i, %(project)s, jsonb_build_array(jsonb_build_object('role', 'user', 'content', {words(10)})),
               i, CASE WHEN i %% 10 = 0 THEN 'held_out' ELSE 'train' END, '[]', '{{}}', {AGO}
        FROM generate_series(1, %(count)s) AS i""",
    "completions": f"""
        INSERT INTO feedback_completion (id, prompt_id, source_id, text, digest, sampling, author_id, created_at)
        SELECT i, i, %(source)s + i %% {SOURCES}, {words(20)}, i, '{{}}',
               CASE WHEN i %% 100 = 0 THEN %(person)s + i / 100 %% {PEOPLE} END, {AGO}
        FROM generate_series(1, %(count)s) AS i""",
    "comparisons": f"""
        INSERT INTO feedback_comparison (id, project_id, prompt_id, size, wanted_rankings, open_slots, ranking_count,
            extra_rankings, priority, shuffle_key, disagreement, created_at)
        SELECT i, %(project)s, i, 2, 1, CASE WHEN i %% 20 = 0 THEN 1 ELSE 0 END,
               CASE WHEN i %% 20 = 0 THEN 0 ELSE 1 END,
               0, 0, random(),
               CASE WHEN i %% 7 = 0 THEN random() ELSE 0 END, {AGO}
        FROM generate_series(1, %(count)s) AS i""",
    "items": """
        INSERT INTO feedback_comparisonitem (comparison_id, prompt_id, completion_id, position, digest)
        SELECT i, i, i, 0, i FROM generate_series(1, %(count)s) AS i""",
    "rankings": f"""
        INSERT INTO feedback_ranking (project_id, comparison_id, annotator_id, size, ranks, display_order, seconds,
            comment, flags, ratings, spans, reason, idempotency_key, revision, is_live, standing, sequence, created_at)
        SELECT %(project)s, i, %(person)s + i %% {PEOPLE}, 2, '{{1,2}}', '{{0,1}}', 9,
               CASE WHEN i %% 5 = 0 THEN {words(10)} ELSE '' END,
               CASE WHEN i %% 50 = 1 THEN ARRAY['all bad'] WHEN i = 7 THEN ARRAY['unsafe'] ELSE ARRAY[]::varchar[] END,
               '{{}}', '[]', 'sampled', gen_random_uuid(), 1, true, 'counts', i, {AGO}
        FROM generate_series(1, %(count)s) AS i WHERE i %% 20 > 0""",
    "skips": f"""
        INSERT INTO feedback_skip (comparison_id, annotator_id, lease_id, reason, created_at)
        SELECT i, %(person)s + i %% {PEOPLE}, gen_random_uuid(),
               CASE WHEN i %% 3 = 0 THEN {words(10)} ELSE '' END, {AGO}
        FROM generate_series(1, %(count)s) AS i WHERE i %% 20 = 0""",
    "demonstrations": f"""
        INSERT INTO feedback_demonstration (completion_id, created_at)
        SELECT i, {AGO} FROM generate_series(1, %(count)s) AS i WHERE i %% 100 = 0""",
}
SEQUENCES = ("prompt", "completion", "comparison")  # tables whose ids are written above


def write(project: int, source: int, person: int, count: int) -> None:
    """Write `count` prompts and their rows. `source`, `person`: the first of SOURCES and PEOPLE consecutive ids."""
    named = {"project": project, "source": source, "person": person, "count": count}
    for statement in STATEMENTS.values():
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SET LOCAL session_replication_role = replica")
            cursor.execute(statement, named)
    with connection.cursor() as cursor:
        for table in SEQUENCES:
            name = f"feedback_{table}"
            cursor.execute(f"SELECT setval(pg_get_serial_sequence('{name}', 'id'), %s)", [count])
        cursor.execute("VACUUM ANALYZE")
