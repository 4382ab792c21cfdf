-- A comparison has as many items as its size says, at positions 0 to size - 1. Checked at the end of the transaction,
-- because a comparison is written before its items.

CREATE OR REPLACE FUNCTION accord_check_whole(checked bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    expected smallint;
    present bigint;
    last smallint;
BEGIN
    SELECT size INTO expected FROM feedback_comparison WHERE id = checked;
    IF NOT FOUND THEN
        RETURN;  -- it was deleted, and its items with it
    END IF;
    SELECT count(*), max(position) INTO present, last FROM feedback_comparisonitem WHERE comparison_id = checked;
    IF present <> expected OR last <> expected - 1 THEN
        RAISE EXCEPTION 'comparison_whole: comparison % has % items up to position %, not %', checked, present, last, expected
            USING ERRCODE = 'check_violation', CONSTRAINT = 'comparison_whole';
    END IF;
END $$;

CREATE OR REPLACE FUNCTION accord_comparison_written() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM accord_check_whole(NEW.id);
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION accord_item_written() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP <> 'INSERT' THEN
        PERFORM accord_check_whole(OLD.comparison_id);
    END IF;
    IF TG_OP <> 'DELETE' THEN
        PERFORM accord_check_whole(NEW.comparison_id);
    END IF;
    RETURN NULL;
END $$;

DROP TRIGGER IF EXISTS comparison_whole ON feedback_comparison;
CREATE CONSTRAINT TRIGGER comparison_whole AFTER INSERT OR UPDATE OF size ON feedback_comparison
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION accord_comparison_written();
DROP TRIGGER IF EXISTS comparison_whole ON feedback_comparisonitem;
CREATE CONSTRAINT TRIGGER comparison_whole
    AFTER INSERT OR DELETE OR UPDATE OF comparison_id, position ON feedback_comparisonitem
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION accord_item_written();

-- REVERSE
DROP TRIGGER comparison_whole ON feedback_comparison;
DROP TRIGGER comparison_whole ON feedback_comparisonitem;
DROP FUNCTION accord_comparison_written();
DROP FUNCTION accord_item_written();
DROP FUNCTION accord_check_whole(bigint);
