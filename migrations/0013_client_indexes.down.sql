-- no transaction
DROP INDEX CONCURRENTLY IF EXISTS {{schema}}.gpt_pushed_requests_client_idx;
DROP INDEX CONCURRENTLY IF EXISTS {{schema}}.gpt_device_codes_client_idx;
DROP INDEX CONCURRENTLY IF EXISTS {{schema}}.gpt_codes_client_idx;
DROP INDEX CONCURRENTLY IF EXISTS {{schema}}.gpt_sessions_client_idx;
CREATE INDEX CONCURRENTLY gpt_sessions_client_idx ON {{schema}}.gpt_sessions (client_id) WHERE revoked_at IS NULL;
DROP INDEX CONCURRENTLY IF EXISTS {{schema}}.gpt_sessions_client_id_idx;
