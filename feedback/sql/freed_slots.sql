-- A deleted account, a deactivated account and an ended membership give their leases back. Without this, each lease
-- would keep a slot for ever.

-- Lapse all leases of a person in one project, or in all (null), and open their slots again.
-- Lock order: leases before comparisons, leases by comparison id.
CREATE OR REPLACE FUNCTION accord_give_back(person bigint, in_project bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    held record;
BEGIN
    FOR held IN
        SELECT id, comparison_id FROM feedback_lease
        WHERE annotator_id = person AND lapsed_at IS NULL AND (in_project IS NULL OR project_id = in_project)
        ORDER BY comparison_id FOR UPDATE
    LOOP
        UPDATE feedback_lease SET lapsed_at = now() WHERE id = held.id;
        UPDATE feedback_comparison SET open_slots = open_slots + 1 WHERE id = held.comparison_id;
    END LOOP;
END $$;

CREATE OR REPLACE FUNCTION accord_account_going() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM accord_give_back(OLD.id, NULL);
    DELETE FROM feedback_lease WHERE annotator_id = OLD.id;
    RETURN OLD;
END $$;

CREATE OR REPLACE FUNCTION accord_account_closed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM accord_give_back(OLD.id, NULL);
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION accord_membership_ended() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM accord_give_back(OLD.user_id, OLD.project_id);
    RETURN NULL;
END $$;

CREATE OR REPLACE TRIGGER account_gives_back BEFORE DELETE ON feedback_user
    FOR EACH ROW EXECUTE FUNCTION accord_account_going();
CREATE OR REPLACE TRIGGER closed_account_gives_back AFTER UPDATE OF is_active ON feedback_user
    FOR EACH ROW WHEN (OLD.is_active AND NOT NEW.is_active) EXECUTE FUNCTION accord_account_closed();
CREATE OR REPLACE TRIGGER membership_gives_back AFTER DELETE ON feedback_membership
    FOR EACH ROW EXECUTE FUNCTION accord_membership_ended();

-- REVERSE
DROP TRIGGER account_gives_back ON feedback_user;
DROP TRIGGER closed_account_gives_back ON feedback_user;
DROP TRIGGER membership_gives_back ON feedback_membership;
DROP FUNCTION accord_account_going();
DROP FUNCTION accord_account_closed();
DROP FUNCTION accord_membership_ended();
DROP FUNCTION accord_give_back(bigint, bigint);
