"""What must hold of comparisons, leases and rankings, and Django's own constraints cannot say."""

from django.db import migrations

ORDERS = """
-- A display order names every position from 0 to its length − 1 once.
CREATE FUNCTION accord_is_permutation(places smallint[]) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN array_ndims(places) = 1 AND (
        SELECT count(DISTINCT place) = cardinality(places) AND min(place) = 0 AND max(place) = cardinality(places) - 1
        FROM unnest(places) AS place
    );

-- Dense ranks: 1, 2, … without a gap, each as often as completions tie on it.
CREATE FUNCTION accord_are_dense(ranks smallint[]) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN array_ndims(ranks) = 1 AND (
        SELECT count(rank) = cardinality(ranks) AND min(rank) = 1 AND max(rank) = count(DISTINCT rank)
        FROM unnest(ranks) AS rank
    );

ALTER TABLE feedback_ranking
    ADD CONSTRAINT ranking_ranks CHECK (cardinality(ranks) = size AND accord_are_dense(ranks) IS TRUE),
    ADD CONSTRAINT ranking_display_order
        CHECK (cardinality(display_order) = size AND accord_is_permutation(display_order) IS TRUE);
ALTER TABLE feedback_lease
    ADD CONSTRAINT lease_display_order
        CHECK (cardinality(display_order) = size AND accord_is_permutation(display_order) IS TRUE);
"""

BELONGING = """
ALTER TABLE feedback_prompt ADD CONSTRAINT prompt_in_project UNIQUE (id, project_id);
ALTER TABLE feedback_completion ADD CONSTRAINT completion_of_prompt UNIQUE (id, prompt_id, digest);
ALTER TABLE feedback_comparison
    ADD CONSTRAINT comparison_of_prompt UNIQUE (id, prompt_id),
    ADD CONSTRAINT comparison_sized UNIQUE (id, project_id, size),
    ADD CONSTRAINT comparison_prompt_in_project FOREIGN KEY (prompt_id, project_id)
        REFERENCES feedback_prompt (id, project_id) DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE feedback_comparisonitem
    ADD CONSTRAINT item_comparison_of_prompt FOREIGN KEY (comparison_id, prompt_id)
        REFERENCES feedback_comparison (id, prompt_id) DEFERRABLE INITIALLY DEFERRED,
    ADD CONSTRAINT item_completion_of_prompt FOREIGN KEY (completion_id, prompt_id, digest)
        REFERENCES feedback_completion (id, prompt_id, digest) DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE feedback_lease
    ADD CONSTRAINT lease_comparison_sized FOREIGN KEY (comparison_id, project_id, size)
        REFERENCES feedback_comparison (id, project_id, size) DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE feedback_ranking
    ADD CONSTRAINT ranking_comparison_sized FOREIGN KEY (comparison_id, project_id, size)
        REFERENCES feedback_comparison (id, project_id, size) DEFERRABLE INITIALLY DEFERRED;
"""

# Checked at the end of the transaction, since a comparison is written before its items.
WHOLENESS = """
CREATE FUNCTION accord_check_whole(checked bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    expected smallint;
    present bigint;
    last smallint;
BEGIN
    SELECT size INTO expected FROM feedback_comparison WHERE id = checked;
    IF NOT FOUND THEN
        RETURN;  -- it went, and its items with it
    END IF;
    SELECT count(*), max(position) INTO present, last FROM feedback_comparisonitem WHERE comparison_id = checked;
    IF present <> expected OR last <> expected - 1 THEN
        RAISE EXCEPTION 'comparison_whole: comparison % has % items up to position %, not %', checked, present, last, expected
            USING ERRCODE = 'check_violation', CONSTRAINT = 'comparison_whole';
    END IF;
END $$;

CREATE FUNCTION accord_comparison_written() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM accord_check_whole(NEW.id);
    RETURN NULL;
END $$;

CREATE FUNCTION accord_item_written() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP <> 'INSERT' THEN
        PERFORM accord_check_whole(OLD.comparison_id);
    END IF;
    IF TG_OP <> 'DELETE' THEN
        PERFORM accord_check_whole(NEW.comparison_id);
    END IF;
    RETURN NULL;
END $$;

CREATE CONSTRAINT TRIGGER comparison_whole AFTER INSERT OR UPDATE OF size ON feedback_comparison
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION accord_comparison_written();
CREATE CONSTRAINT TRIGGER comparison_whole
    AFTER INSERT OR DELETE OR UPDATE OF comparison_id, position ON feedback_comparisonitem
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION accord_item_written();
"""


class Migration(migrations.Migration):
    dependencies = [("feedback", "0001_initial")]

    operations = [migrations.RunSQL(sql) for sql in (ORDERS, BELONGING, WHOLENESS)]
