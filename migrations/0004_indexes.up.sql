-- no transaction
-- Built without blocking writers. An interrupted build leaves an invalid index
-- behind, hence the drop before each.
DROP INDEX CONCURRENTLY IF EXISTS {{schema}}.gpt_sessions_live_idx;
CREATE INDEX CONCURRENTLY gpt_sessions_live_idx ON {{schema}}.gpt_sessions (user_id, created_at DESC) WHERE revoked_at IS NULL;
DROP INDEX CONCURRENTLY IF EXISTS {{schema}}.gpt_sessions_client_idx;
CREATE INDEX CONCURRENTLY gpt_sessions_client_idx ON {{schema}}.gpt_sessions (client_id) WHERE revoked_at IS NULL;
DROP INDEX CONCURRENTLY IF EXISTS {{schema}}.gpt_sessions_expires_idx;
CREATE INDEX CONCURRENTLY gpt_sessions_expires_idx ON {{schema}}.gpt_sessions (expires_at);
DROP INDEX CONCURRENTLY IF EXISTS {{schema}}.gpt_codes_expires_idx;
CREATE INDEX CONCURRENTLY gpt_codes_expires_idx ON {{schema}}.gpt_authorization_codes (expires_at);
DROP INDEX CONCURRENTLY IF EXISTS {{schema}}.gpt_codes_login_idx;
CREATE INDEX CONCURRENTLY gpt_codes_login_idx ON {{schema}}.gpt_authorization_codes (login_id) WHERE login_id IS NOT NULL;
DROP INDEX CONCURRENTLY IF EXISTS {{schema}}.gpt_codes_session_idx;
CREATE INDEX CONCURRENTLY gpt_codes_session_idx ON {{schema}}.gpt_authorization_codes (session_id) WHERE session_id IS NOT NULL;
