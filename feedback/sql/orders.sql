-- Checks of display orders and ranks. PL/pgSQL, because a session plans these once; SQL functions were planned anew for
-- every row and took half of the time of storing a ranking.

-- Return whether `places` holds every position from 0 to its length - 1 once.
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

-- Return whether `ranks` are dense: 1, 2, ... without a gap. Ties share a rank.
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

-- REVERSE
DROP FUNCTION accord_is_permutation(smallint[]);
DROP FUNCTION accord_are_dense(smallint[]);
