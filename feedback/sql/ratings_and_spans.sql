-- Checks of the JSON of ratings and marked spans.

-- Return whether `ratings` holds, for every attribute, a list of `size` ratings from 1 to 5 or null.
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

-- Return whether `spans` are sorted, do not overlap, lie in one of `size` completions and are marked good or bad.
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

-- REVERSE
DROP FUNCTION accord_are_ratings(jsonb, integer);
DROP FUNCTION accord_are_spans(jsonb, integer);
