"""The same rules as before, in PL/pgSQL: a session plans what it says once, and SQL functions anew with each row.

They took half of the time of storing a ranking.
"""

from django.db import migrations

ORDERS = """
CREATE OR REPLACE FUNCTION accord_is_permutation(places smallint[]) RETURNS boolean
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    place integer;
BEGIN
    IF array_ndims(places) IS DISTINCT FROM 1 THEN
        RETURN false;
    END IF;
    FOR place IN 0 .. cardinality(places) - 1 LOOP
        IF place::smallint <> ALL (places) IS NOT FALSE THEN
            RETURN false;
        END IF;
    END LOOP;
    RETURN true;
END $$;

CREATE OR REPLACE FUNCTION accord_are_dense(ranks smallint[]) RETURNS boolean
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    rank smallint;
    last smallint := 0;
BEGIN
    IF array_ndims(ranks) IS DISTINCT FROM 1 THEN
        RETURN false;
    END IF;
    FOREACH rank IN ARRAY ranks LOOP
        IF (rank >= 1) IS NOT TRUE THEN
            RETURN false;
        END IF;
        last := greatest(last, rank);
    END LOOP;
    FOR rank IN 1 .. last LOOP
        IF rank <> ALL (ranks) THEN
            RETURN false;
        END IF;
    END LOOP;
    RETURN true;
END $$;
"""

FORMS = """
CREATE OR REPLACE FUNCTION accord_are_ratings(ratings jsonb, size integer) RETURNS boolean
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    IF ratings = '{}' THEN
        RETURN true;
    END IF;
    RETURN jsonb_typeof(ratings) = 'object' AND NOT EXISTS (
        SELECT FROM jsonb_path_query(ratings, '$.*') AS given
        WHERE CASE jsonb_typeof(given) WHEN 'array' THEN
            jsonb_array_length(given) <> size OR
            EXISTS (
                SELECT FROM jsonb_array_elements(given) AS rating
                WHERE rating NOT IN ('null'::jsonb, '1', '2', '3', '4', '5')
            )
        ELSE true END
    );
END $$;

CREATE OR REPLACE FUNCTION accord_are_spans(spans jsonb, size integer) RETURNS boolean
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    IF spans = '[]' THEN
        RETURN true;
    END IF;
    RETURN jsonb_typeof(spans) = 'array' AND NOT EXISTS (
        SELECT FROM (
            SELECT completion, start, "end", mark,
                lag(completion) OVER (ORDER BY place) AS completion_before, lag("end") OVER (ORDER BY place) AS end_before
            FROM ROWS FROM (
                jsonb_to_recordset(CASE jsonb_typeof(spans) WHEN 'array' THEN spans ELSE '[]' END)
                    AS (completion integer, start integer, "end" integer, mark text)
            ) WITH ORDINALITY AS span (completion, start, "end", mark, place)
        ) AS marked
        WHERE (
            completion BETWEEN 0 AND size - 1 AND start >= 0 AND start < "end" AND mark IN ('good', 'bad')
            AND (completion_before IS NULL OR completion > completion_before
                OR completion = completion_before AND start >= end_before)
        ) IS NOT TRUE
    );
END $$;
"""

# Most rankings are their comparison's first, and nobody is there to disagree with.
DISAGREEMENT = """
CREATE OR REPLACE FUNCTION accord_disagreement(of_comparison bigint) RETURNS double precision
    LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
BEGIN
    IF (SELECT count(*) < 2 FROM feedback_ranking
        WHERE comparison_id = of_comparison AND is_live AND reason <> 'adjudication')
    THEN
        RETURN 0;
    END IF;
    RETURN (
        SELECT coalesce(sum(a * b)::double precision / nullif(sum((a + b) * (a + b - 1) / 2), 0), 0)
        FROM (
            SELECT count(*) FILTER (WHERE ranks[i] < ranks[j]) AS a, count(*) FILTER (WHERE ranks[i] > ranks[j]) AS b
            FROM feedback_ranking, generate_series(1, size - 1) AS i, generate_series(i + 1, size) AS j
            WHERE comparison_id = of_comparison AND is_live AND reason <> 'adjudication'
            GROUP BY i, j
        ) AS pair
    );
END $$;
"""


class Migration(migrations.Migration):
    dependencies = [("feedback", "0007_reliability")]

    operations = [migrations.RunSQL(sql, migrations.RunSQL.noop) for sql in (ORDERS, FORMS, DISAGREEMENT)]
