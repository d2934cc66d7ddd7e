-- no transaction
-- Lists of live sessions and of events go by time, newest first, and a page begins
-- where the one before ended. No column is here that a refresh changes: its row
-- would no longer stay on its page.
DROP INDEX CONCURRENTLY IF EXISTS {{schema}}.gpt_sessions_listed_idx;
CREATE INDEX CONCURRENTLY gpt_sessions_listed_idx ON {{schema}}.gpt_sessions (created_at, id) WHERE revoked_at IS NULL;
-- In place of the index of client_id alone.
DROP INDEX CONCURRENTLY IF EXISTS {{schema}}.gpt_sessions_client_listed_idx;
CREATE INDEX CONCURRENTLY gpt_sessions_client_listed_idx ON {{schema}}.gpt_sessions (client_id, created_at, id);
DROP INDEX CONCURRENTLY IF EXISTS {{schema}}.gpt_sessions_client_id_idx;
-- In place of the index of user_id alone.
DROP INDEX CONCURRENTLY IF EXISTS {{schema}}.gpt_events_user_idx;
CREATE INDEX CONCURRENTLY gpt_events_user_idx ON {{schema}}.gpt_oauth_events (user_id, created_at, id) WHERE user_id IS NOT NULL;
DROP INDEX CONCURRENTLY IF EXISTS {{schema}}.idx_gpt_oauth_events_user_id;
DROP INDEX CONCURRENTLY IF EXISTS {{schema}}.gpt_events_client_idx;
CREATE INDEX CONCURRENTLY gpt_events_client_idx ON {{schema}}.gpt_oauth_events (client_id, created_at, id) WHERE client_id IS NOT NULL;
DROP INDEX CONCURRENTLY IF EXISTS {{schema}}.gpt_events_session_idx;
CREATE INDEX CONCURRENTLY gpt_events_session_idx ON {{schema}}.gpt_oauth_events (session_id, created_at, id) WHERE session_id IS NOT NULL;
