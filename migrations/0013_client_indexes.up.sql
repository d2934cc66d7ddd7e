-- no transaction
-- Deleting a client looks up all that refers to it, once for each client: with an
-- index of the live sessions only, or none, it read whole tables.
DROP INDEX CONCURRENTLY IF EXISTS {{schema}}.gpt_sessions_client_id_idx;
CREATE INDEX CONCURRENTLY gpt_sessions_client_id_idx ON {{schema}}.gpt_sessions (client_id);
DROP INDEX CONCURRENTLY IF EXISTS {{schema}}.gpt_sessions_client_idx;
DROP INDEX CONCURRENTLY IF EXISTS {{schema}}.gpt_codes_client_idx;
CREATE INDEX CONCURRENTLY gpt_codes_client_idx ON {{schema}}.gpt_authorization_codes (client_id);
DROP INDEX CONCURRENTLY IF EXISTS {{schema}}.gpt_device_codes_client_idx;
CREATE INDEX CONCURRENTLY gpt_device_codes_client_idx ON {{schema}}.gpt_device_codes (client_id);
DROP INDEX CONCURRENTLY IF EXISTS {{schema}}.gpt_pushed_requests_client_idx;
CREATE INDEX CONCURRENTLY gpt_pushed_requests_client_idx ON {{schema}}.gpt_pushed_requests (client_id);
