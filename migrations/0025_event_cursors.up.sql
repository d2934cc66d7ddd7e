-- Whoever follows the audit trail follows the transactions that wrote it: rows do
-- not become visible in the order of created_at. A default that comes after the
-- column: no row is written anew. NULL: of before this migration, or of another
-- server.
ALTER TABLE {{schema}}.gpt_oauth_events ADD COLUMN xact xid8;
ALTER TABLE {{schema}}.gpt_oauth_events ALTER COLUMN xact SET DEFAULT pg_current_xact_id();

-- How far the events have gone to a webhook. The first three of the cursor name
-- the last one that it took.
CREATE TABLE {{schema}}.gpt_event_cursors (
	destination  text PRIMARY KEY CHECK (destination <> ''),
	place        text NOT NULL DEFAULT '', -- which table of which database; another one: the cursor means nothing here
	xact         xid8 NOT NULL DEFAULT '0',
	created_at   timestamptz NOT NULL DEFAULT '-infinity',
	event_id     uuid NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000',
	seen_at      timestamptz NOT NULL DEFAULT now(), -- what is older has gone
	-- Who sends now: no connection is held while the receiver takes its time.
	lease_holder uuid,
	lease_until  timestamptz
);
ALTER TABLE {{schema}}.gpt_event_cursors ENABLE ROW LEVEL SECURITY;
