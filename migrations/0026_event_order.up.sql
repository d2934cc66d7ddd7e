-- no transaction
-- The order in which events are delivered. It begins empty: what was there before
-- has no transaction.
DROP INDEX CONCURRENTLY IF EXISTS {{schema}}.gpt_events_xact_idx;
CREATE INDEX CONCURRENTLY gpt_events_xact_idx ON {{schema}}.gpt_oauth_events (xact, created_at, id) WHERE xact IS NOT NULL;
