-- Count the statements that change or delete prompts of a project, so that an export knows without reading all prompts
-- whether what it has of them is still the same. New prompts change no export of rankings that were there before.

CREATE OR REPLACE FUNCTION accord_count_prompt_changes(projects bigint[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO feedback_promptchanges (project_id, count)
    SELECT DISTINCT project, 1 FROM unnest(projects) AS project ORDER BY project
    ON CONFLICT (project_id) DO UPDATE SET count = feedback_promptchanges.count + 1;
END $$;

CREATE OR REPLACE FUNCTION accord_prompts_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM accord_count_prompt_changes(ARRAY(
        SELECT DISTINCT changed.project_id FROM changed JOIN unchanged USING (id)
        WHERE (changed.messages, changed.split, changed.external_id, changed."references", changed.metadata)
              IS DISTINCT FROM
              (unchanged.messages, unchanged.split, unchanged.external_id, unchanged."references", unchanged.metadata)));
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION accord_prompts_deleted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM accord_count_prompt_changes(ARRAY(SELECT DISTINCT project_id FROM unchanged));
    RETURN NULL;
END $$;

CREATE OR REPLACE TRIGGER prompts_changed AFTER UPDATE ON feedback_prompt
    REFERENCING OLD TABLE AS unchanged NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION accord_prompts_changed();
CREATE OR REPLACE TRIGGER prompts_deleted AFTER DELETE ON feedback_prompt
    REFERENCING OLD TABLE AS unchanged
    FOR EACH STATEMENT EXECUTE FUNCTION accord_prompts_deleted();

-- REVERSE
DROP TRIGGER prompts_changed ON feedback_prompt;
DROP TRIGGER prompts_deleted ON feedback_prompt;
DROP FUNCTION accord_prompts_changed();
DROP FUNCTION accord_prompts_deleted();
DROP FUNCTION accord_count_prompt_changes(bigint[]);
