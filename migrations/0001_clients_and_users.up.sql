-- What must hold for all nodes: the fingerprint of the root secret.
CREATE TABLE {{schema}}.gpt_settings (
	key        text PRIMARY KEY,
	value      text NOT NULL,
	updated_at timestamptz NOT NULL DEFAULT now()
);

-- Clients of the configuration, as the target of foreign keys and for the
-- switch-off in SQL: disabling or deleting one revokes its sessions.
CREATE TABLE {{schema}}.gpt_clients (
	client_id   text PRIMARY KEY CHECK (client_id <> ''),
	name        text NOT NULL DEFAULT '',
	disabled_at timestamptz,
	created_at  timestamptz NOT NULL DEFAULT now(),
	updated_at  timestamptz NOT NULL DEFAULT now()
);

-- Users of `login password`. Other logins bring user ids of their own.
CREATE TABLE {{schema}}.gpt_users (
	id            text PRIMARY KEY DEFAULT gen_random_uuid()::text CHECK (id <> ''),
	email         text NOT NULL CHECK (email <> '' AND email = btrim(email) AND length(email) <= 320),
	password_hash text NOT NULL,
	disabled_at   timestamptz,
	created_at    timestamptz NOT NULL DEFAULT now(),
	updated_at    timestamptz NOT NULL DEFAULT now()
);
-- One account per address. Only ASCII folds: a locale that folds more (the
-- Kelvin sign to k) would let one person take another's address.
CREATE UNIQUE INDEX gpt_users_email_key ON {{schema}}.gpt_users (lower(email COLLATE "C"));

-- A user's signed-in browser. The cookie is stored as SHA-256 only.
CREATE TABLE {{schema}}.gpt_logins (
	id         uuid PRIMARY KEY DEFAULT gen_random_uuid(),
	digest     bytea NOT NULL UNIQUE CHECK (octet_length(digest) = 32),
	user_id    text NOT NULL,
	auth_time  timestamptz NOT NULL DEFAULT now(),
	expires_at timestamptz NOT NULL
);
CREATE INDEX gpt_logins_user_id_idx ON {{schema}}.gpt_logins (user_id);
CREATE INDEX gpt_logins_expires_at_idx ON {{schema}}.gpt_logins (expires_at);

CREATE TABLE {{schema}}.gpt_signing_keys (
	kid        text PRIMARY KEY CHECK (kid <> ''),
	phase      text NOT NULL CHECK (phase IN ('published', 'active', 'retiring', 'gone')),
	public     json NOT NULL,
	sealed     bytea,
	since      timestamptz NOT NULL,
	created_at timestamptz NOT NULL,
	-- A gone key's row stays, so that its kid is never used again; its private part does not.
	CHECK ((phase = 'gone') = (sealed IS NULL))
);
-- Two nodes can never both make a key that signs.
CREATE UNIQUE INDEX gpt_signing_keys_one_active ON {{schema}}.gpt_signing_keys (phase) WHERE phase = 'active';

-- Supabase exposes the schema public over HTTP: with row level security and no
-- policy nobody but the owner sees a row.
ALTER TABLE {{schema}}.gpt_settings ENABLE ROW LEVEL SECURITY;
ALTER TABLE {{schema}}.gpt_clients ENABLE ROW LEVEL SECURITY;
ALTER TABLE {{schema}}.gpt_users ENABLE ROW LEVEL SECURITY;
ALTER TABLE {{schema}}.gpt_logins ENABLE ROW LEVEL SECURITY;
ALTER TABLE {{schema}}.gpt_signing_keys ENABLE ROW LEVEL SECURITY;
