-- no transaction
-- A look-up reads one page of a hash index and one of the table, however many
-- rows there are; a B-tree grows a level. The B-trees stay: they are unique, and
-- list in order. No hash index is on what many rows may have in common.
DROP INDEX CONCURRENTLY IF EXISTS {{schema}}.gpt_sessions_id_hash;
CREATE INDEX CONCURRENTLY gpt_sessions_id_hash ON {{schema}}.gpt_sessions USING hash (id);
DROP INDEX CONCURRENTLY IF EXISTS {{schema}}.gpt_users_id_hash;
CREATE INDEX CONCURRENTLY gpt_users_id_hash ON {{schema}}.gpt_users USING hash (id);
DROP INDEX CONCURRENTLY IF EXISTS {{schema}}.gpt_users_email_hash;
CREATE INDEX CONCURRENTLY gpt_users_email_hash ON {{schema}}.gpt_users USING hash (lower(email COLLATE "C"));
DROP INDEX CONCURRENTLY IF EXISTS {{schema}}.gpt_identities_subject_hash;
CREATE INDEX CONCURRENTLY gpt_identities_subject_hash ON {{schema}}.gpt_identities USING hash (subject);
DROP INDEX CONCURRENTLY IF EXISTS {{schema}}.gpt_session_calls_session_hash;
CREATE INDEX CONCURRENTLY gpt_session_calls_session_hash ON {{schema}}.gpt_session_calls USING hash (session_id);
