-- Full-text search in texts of any language.

-- Return the words of a text. Chinese and Japanese write no blanks between words, so each of their characters is a word;
-- `accord_search_query` asks for such characters in a row. Text beyond 100,000 characters is not searched, because a
-- tsvector has at most 1 MB.
-- Both functions repeat the expressions and call no other function of ours: pg_restore runs them with an empty
-- search_path.
CREATE OR REPLACE FUNCTION accord_search_vector(texts text) RETURNS tsvector
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE COST 2000 AS $$
BEGIN
    RETURN to_tsvector(
        'simple'::regconfig,
        regexp_replace(left(texts, 100000), '([\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff])', ' \1 ', 'g'));
END $$;

-- Return the words of a prompt's messages, without their roles.
CREATE OR REPLACE FUNCTION accord_messages_vector(messages jsonb) RETURNS tsvector
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE COST 2000 AS $$
DECLARE
    texts text;
BEGIN
    SELECT string_agg(message ->> 'content', E'\n' ORDER BY place) INTO texts
    FROM jsonb_array_elements(messages) WITH ORDINALITY AS listed (message, place);
    RETURN to_tsvector(
        'simple'::regconfig,
        regexp_replace(left(texts, 100000), '([\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff])', ' \1 ', 'g'));
END $$;

-- Return the query of what a person typed: words, "a phrase", or, -not.
CREATE OR REPLACE FUNCTION accord_search_query(typed text) RETURNS tsquery
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    phrases text := regexp_replace(
        typed, '([\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]+)', '"\1"', 'g');
BEGIN
    RETURN websearch_to_tsquery(
        'simple'::regconfig,
        regexp_replace(phrases, '([\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff])', ' \1 ', 'g'));
END $$;

-- REVERSE
DROP FUNCTION accord_search_vector(text);
DROP FUNCTION accord_messages_vector(jsonb);
DROP FUNCTION accord_search_query(text);
