-- The audit log is append-only: no row is changed or deleted.
--
-- One exception: the erasure of a person takes their name out of the rows about them. `accord.erasure` then has the id
-- of the row that records this erasure, so that none can happen without its record. The act, its time, its object and
-- the ids stay.
CREATE OR REPLACE FUNCTION accord_audit_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    erasure bigint := NULLIF(current_setting('accord.erasure', true), '');
    person text;
BEGIN
    IF TG_OP = 'UPDATE' AND erasure IS NOT NULL THEN
        SELECT object_id INTO person FROM feedback_auditentry WHERE id = erasure AND act = 'person.erase';
        IF person IS NOT NULL
            AND (OLD.actor_id::text = person OR (OLD.object_type = 'user' AND OLD.object_id = person))
            AND (OLD.id, OLD.created_at, OLD.act, OLD.via, OLD.actor_id, OLD.project_id, OLD.object_type, OLD.object_id)
                IS NOT DISTINCT FROM
                (NEW.id, NEW.created_at, NEW.act, NEW.via, NEW.actor_id, NEW.project_id, NEW.object_type, NEW.object_id)
        THEN
            RETURN NEW;
        END IF;
    END IF;
    RAISE EXCEPTION 'The audit log is append-only: % is refused.', TG_OP USING ERRCODE = 'restrict_violation';
END $$;

CREATE OR REPLACE TRIGGER audit_append_only BEFORE UPDATE OR DELETE ON feedback_auditentry
    FOR EACH ROW EXECUTE FUNCTION accord_audit_append_only();

-- REVERSE
DROP TRIGGER audit_append_only ON feedback_auditentry;
DROP FUNCTION accord_audit_append_only();
