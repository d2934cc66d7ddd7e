-- What callers have spent of their rates, at all nodes together. A key is a digest
-- under a key of the nodes, so that nobody can read from it who called. Unlogged:
-- after a crash of the server all quotas are whole, as they soon would be.
CREATE UNLOGGED TABLE {{schema}}.gpt_rates (
	key      bytea PRIMARY KEY CHECK (octet_length(key) = 16),
	whole_at timestamptz NOT NULL -- when the quota is whole again
) WITH (fillfactor = 50);
ALTER TABLE {{schema}}.gpt_rates ENABLE ROW LEVEL SECURITY;
