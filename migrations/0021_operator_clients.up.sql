-- Clients that an operator has added. What is there of one stands in settings, as
-- the configuration would have it; secrets are kept as SHA-256. Each has its own
-- row in gpt_clients: disabling or deleting that ends its sessions.
CREATE TABLE {{schema}}.gpt_operator_clients (
	-- No other client has this prefix, so that a gate knows without asking whose
	-- sessions end with a row.
	client_id      text PRIMARY KEY REFERENCES {{schema}}.gpt_clients ON DELETE CASCADE CHECK (client_id LIKE 'op\_%'),
	settings       json NOT NULL,
	secret_hash    bytea CHECK (octet_length(secret_hash) = 32),
	secret_since   timestamptz,
	-- The secret before, while it still holds.
	previous_hash  bytea CHECK (octet_length(previous_hash) = 32),
	previous_until timestamptz,
	created_at     timestamptz NOT NULL DEFAULT now(),
	CHECK ((secret_hash IS NULL) = (secret_since IS NULL)),
	CHECK ((previous_hash IS NULL) = (previous_until IS NULL)),
	-- A client that was made without a secret can never have had one.
	CHECK (previous_hash IS NULL OR secret_hash IS NOT NULL)
);
ALTER TABLE {{schema}}.gpt_operator_clients ENABLE ROW LEVEL SECURITY;
