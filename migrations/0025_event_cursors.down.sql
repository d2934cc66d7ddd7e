DROP TABLE {{schema}}.gpt_event_cursors;
ALTER TABLE {{schema}}.gpt_oauth_events DROP COLUMN xact;
