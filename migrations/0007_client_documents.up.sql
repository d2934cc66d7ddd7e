-- Clients that registered themselves by RFC 7591. Both secrets are kept as
-- SHA-256. Each has its own row in gpt_clients: deleting that ends its sessions.
CREATE TABLE {{schema}}.gpt_client_registrations (
	client_id   text PRIMARY KEY REFERENCES {{schema}}.gpt_clients ON DELETE CASCADE,
	metadata    json NOT NULL, -- as it was checked and answered
	secret_hash bytea CHECK (octet_length(secret_hash) = 32),
	token_hash  bytea NOT NULL CHECK (octet_length(token_hash) = 32), -- registration access token, RFC 7592
	unused_ttl  interval NOT NULL CHECK (unused_ttl > interval '0'),
	issued_at   timestamptz NOT NULL DEFAULT now(),
	used_at     timestamptz -- when a user allowed it last; NULL: never
);
CREATE INDEX gpt_client_registrations_used_idx ON {{schema}}.gpt_client_registrations (coalesce(used_at, issued_at));

-- Client metadata documents as some node fetched them, for all nodes.
CREATE TABLE {{schema}}.gpt_client_documents (
	client_id   text PRIMARY KEY REFERENCES {{schema}}.gpt_clients ON DELETE CASCADE CHECK (client_id LIKE 'https://%'),
	document    text NOT NULL,
	fetched_at  timestamptz NOT NULL,
	fresh_until timestamptz NOT NULL,
	unused_ttl  interval NOT NULL CHECK (unused_ttl > interval '0'),
	issued_at   timestamptz NOT NULL DEFAULT now(), -- when it was first seen
	used_at     timestamptz
);
CREATE INDEX gpt_client_documents_used_idx ON {{schema}}.gpt_client_documents (coalesce(used_at, issued_at));

-- What a user said yes to: a digest of all that the client then said of itself.
CREATE TABLE {{schema}}.gpt_client_approvals (
	client_id   text NOT NULL REFERENCES {{schema}}.gpt_clients ON DELETE CASCADE,
	user_id     text NOT NULL CHECK (user_id <> ''),
	revision    bytea NOT NULL CHECK (octet_length(revision) = 32),
	approved_at timestamptz NOT NULL DEFAULT now(),
	PRIMARY KEY (client_id, user_id)
);
CREATE INDEX gpt_client_approvals_approved_idx ON {{schema}}.gpt_client_approvals (approved_at);

ALTER TABLE {{schema}}.gpt_client_registrations ENABLE ROW LEVEL SECURITY;
ALTER TABLE {{schema}}.gpt_client_documents ENABLE ROW LEVEL SECURITY;
ALTER TABLE {{schema}}.gpt_client_approvals ENABLE ROW LEVEL SECURITY;
