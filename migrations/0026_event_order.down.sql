-- no transaction
DROP INDEX CONCURRENTLY IF EXISTS {{schema}}.gpt_events_xact_idx;
