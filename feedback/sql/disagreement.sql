-- Keep `disagreement` of each comparison up to date.

-- Return the share of pairs of annotators who order a pair of completions in opposite ways, over all pairs of completions.
-- If a annotators prefer the one and b the other, a * b of the (a + b)(a + b - 1) / 2 pairs of annotators are opposed.
-- Most rankings are the first of their comparison: these return early.
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

-- The comparison is locked before its rankings are read. Without the lock, two rankings that are written at the same
-- time would not see one another.
CREATE OR REPLACE FUNCTION accord_ranking_written() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    is_gold boolean;
    share double precision;
BEGIN
    SELECT gold_ranks IS NOT NULL INTO is_gold FROM feedback_comparison WHERE id = NEW.comparison_id FOR NO KEY UPDATE;
    IF is_gold THEN
        RETURN NULL;  -- every annotator ranks gold, so it never needs a review
    END IF;
    share := accord_disagreement(NEW.comparison_id);
    UPDATE feedback_comparison SET disagreement = share WHERE id = NEW.comparison_id AND disagreement <> share;
    RETURN NULL;
END $$;

CREATE OR REPLACE TRIGGER ranking_disagreement AFTER INSERT ON feedback_ranking
    FOR EACH ROW WHEN (NEW.is_live) EXECUTE FUNCTION accord_ranking_written();
CREATE OR REPLACE TRIGGER ranking_disagreement_changed AFTER UPDATE OF is_live ON feedback_ranking
    FOR EACH ROW WHEN (OLD.is_live <> NEW.is_live) EXECUTE FUNCTION accord_ranking_written();

-- REVERSE
DROP TRIGGER ranking_disagreement ON feedback_ranking;
DROP TRIGGER ranking_disagreement_changed ON feedback_ranking;
DROP FUNCTION accord_ranking_written();
DROP FUNCTION accord_disagreement(bigint);
