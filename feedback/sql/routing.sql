-- Routing: which prompts the rules of a project keep from a member.
--
-- `barred_tags` of a membership and `route` of a comparison are derived. A claim compares the tags of the prompt itself
-- with `barred_tags`; `route` only orders the queue, so that a member's work is found without reading that of others.

-- Return the tags of a prompt: the list, or the one text, that its metadata name "tags".
CREATE OR REPLACE FUNCTION accord_tags(metadata jsonb) RETURNS text[] LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    RETURN CASE jsonb_typeof(metadata -> 'tags')
        WHEN 'array' THEN ARRAY(SELECT jsonb_array_elements_text(metadata -> 'tags'))
        WHEN 'string' THEN ARRAY[metadata ->> 'tags']
        ELSE '{}'::text[]
    END;
END $$;

-- Return the route of a prompt: its tags that rules name, sorted, one a line.
CREATE OR REPLACE FUNCTION accord_route(metadata jsonb, routed text[]) RETURNS text
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    RETURN (SELECT coalesce(string_agg(DISTINCT tag, E'\n' ORDER BY tag), '')
        FROM unnest(accord_tags(metadata)) AS tag WHERE tag = ANY(routed));
END $$;

CREATE OR REPLACE FUNCTION accord_comparisons_routed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE feedback_comparison AS comparison SET route = accord_route(prompt.metadata, project.routed_tags)
    FROM written, feedback_project AS project, feedback_prompt AS prompt
    WHERE comparison.id = written.id AND prompt.id = written.prompt_id AND project.id = written.project_id
        AND project.routed_tags <> '{}' AND accord_route(prompt.metadata, project.routed_tags) <> '';
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION accord_prompt_tagged() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE feedback_comparison AS comparison SET route = accord_route(NEW.metadata, project.routed_tags)
    FROM feedback_project AS project
    WHERE comparison.prompt_id = NEW.id AND project.id = NEW.project_id
        AND comparison.route <> accord_route(NEW.metadata, project.routed_tags);
    RETURN NULL;
END $$;

-- The project is locked, so that a rule that is being changed is not missed.
CREATE OR REPLACE FUNCTION accord_bar_member() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM feedback_project WHERE id = NEW.project_id FOR SHARE;
    NEW.barred_tags := ARRAY(
        SELECT DISTINCT tag FROM feedback_routingrule AS rule, unnest(rule.tags) AS tag
        WHERE rule.project_id = NEW.project_id AND NOT rule.groups && NEW.groups ORDER BY tag);
    RETURN NEW;
END $$;

-- Give back what the member holds and may not rank any more. A lease that another transaction has locked is ending.
CREATE OR REPLACE FUNCTION accord_member_barred() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    held record;
BEGIN
    FOR held IN
        SELECT lease.id, lease.comparison_id
        FROM feedback_lease AS lease
        JOIN feedback_comparison AS comparison ON comparison.id = lease.comparison_id
        JOIN feedback_prompt AS prompt ON prompt.id = comparison.prompt_id
        WHERE lease.annotator_id = NEW.user_id AND lease.project_id = NEW.project_id AND lease.lapsed_at IS NULL
            AND accord_tags(prompt.metadata) && NEW.barred_tags::text[]
        ORDER BY lease.comparison_id FOR UPDATE OF lease SKIP LOCKED
    LOOP
        UPDATE feedback_lease SET lapsed_at = now() WHERE id = held.id;
        UPDATE feedback_comparison SET open_slots = open_slots + 1 WHERE id = held.comparison_id;
    END LOOP;
    RETURN NULL;
END $$;

CREATE OR REPLACE TRIGGER comparisons_get_routes AFTER INSERT ON feedback_comparison
    REFERENCING NEW TABLE AS written FOR EACH STATEMENT EXECUTE FUNCTION accord_comparisons_routed();
CREATE OR REPLACE TRIGGER prompt_changes_routes AFTER UPDATE OF metadata ON feedback_prompt
    FOR EACH ROW WHEN (OLD.metadata IS DISTINCT FROM NEW.metadata) EXECUTE FUNCTION accord_prompt_tagged();
CREATE OR REPLACE TRIGGER membership_is_barred BEFORE INSERT OR UPDATE OF groups ON feedback_membership
    FOR EACH ROW EXECUTE FUNCTION accord_bar_member();
CREATE OR REPLACE TRIGGER membership_gives_back_barred AFTER UPDATE ON feedback_membership
    FOR EACH ROW WHEN (OLD.barred_tags IS DISTINCT FROM NEW.barred_tags) EXECUTE FUNCTION accord_member_barred();

-- REVERSE
DROP TRIGGER comparisons_get_routes ON feedback_comparison;
DROP TRIGGER prompt_changes_routes ON feedback_prompt;
DROP TRIGGER membership_is_barred ON feedback_membership;
DROP TRIGGER membership_gives_back_barred ON feedback_membership;
DROP FUNCTION accord_comparisons_routed();
DROP FUNCTION accord_prompt_tagged();
DROP FUNCTION accord_bar_member();
DROP FUNCTION accord_member_barred();
DROP FUNCTION accord_route(jsonb, text[]);
DROP FUNCTION accord_tags(jsonb);
