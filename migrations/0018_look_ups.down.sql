-- no transaction
DROP INDEX CONCURRENTLY IF EXISTS {{schema}}.gpt_session_calls_session_hash;
DROP INDEX CONCURRENTLY IF EXISTS {{schema}}.gpt_identities_subject_hash;
DROP INDEX CONCURRENTLY IF EXISTS {{schema}}.gpt_users_email_hash;
DROP INDEX CONCURRENTLY IF EXISTS {{schema}}.gpt_users_id_hash;
DROP INDEX CONCURRENTLY IF EXISTS {{schema}}.gpt_sessions_id_hash;
