-- no transaction
DROP INDEX CONCURRENTLY IF EXISTS {{schema}}.gpt_events_session_idx;
DROP INDEX CONCURRENTLY IF EXISTS {{schema}}.gpt_events_client_idx;
CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_gpt_oauth_events_user_id ON {{schema}}.gpt_oauth_events (user_id);
DROP INDEX CONCURRENTLY IF EXISTS {{schema}}.gpt_events_user_idx;
DROP INDEX CONCURRENTLY IF EXISTS {{schema}}.gpt_sessions_client_id_idx;
CREATE INDEX CONCURRENTLY gpt_sessions_client_id_idx ON {{schema}}.gpt_sessions (client_id);
DROP INDEX CONCURRENTLY IF EXISTS {{schema}}.gpt_sessions_client_listed_idx;
DROP INDEX CONCURRENTLY IF EXISTS {{schema}}.gpt_sessions_listed_idx;
