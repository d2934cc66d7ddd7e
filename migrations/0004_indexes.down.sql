-- no transaction
DROP INDEX CONCURRENTLY IF EXISTS {{schema}}.gpt_sessions_live_idx;
DROP INDEX CONCURRENTLY IF EXISTS {{schema}}.gpt_sessions_client_idx;
DROP INDEX CONCURRENTLY IF EXISTS {{schema}}.gpt_sessions_expires_idx;
DROP INDEX CONCURRENTLY IF EXISTS {{schema}}.gpt_codes_expires_idx;
DROP INDEX CONCURRENTLY IF EXISTS {{schema}}.gpt_codes_login_idx;
DROP INDEX CONCURRENTLY IF EXISTS {{schema}}.gpt_codes_session_idx;
