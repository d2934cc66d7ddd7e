-- Device authorizations (RFC 8628). Both codes are kept as digests only: the
-- device code as SHA-256, the user code, which is short, as an HMAC whose key is
-- not in the database.
CREATE TABLE {{schema}}.gpt_device_codes (
	id             uuid PRIMARY KEY DEFAULT gen_random_uuid(),
	device_hash    bytea NOT NULL UNIQUE CHECK (octet_length(device_hash) = 32),
	-- No two requests share a user code: a person would connect another's device.
	user_code_hash bytea NOT NULL UNIQUE CHECK (octet_length(user_code_hash) = 32),
	client_id      text NOT NULL REFERENCES {{schema}}.gpt_clients ON DELETE CASCADE,
	resource       text NOT NULL,
	scopes         text[] NOT NULL CHECK (array_position(scopes, NULL) IS NULL),
	-- How often the user code was entered: one that is known to many is burnt.
	entered        int NOT NULL DEFAULT 0,
	poll_interval  int NOT NULL CHECK (poll_interval > 0), -- seconds
	polled_at      timestamptz,
	polled_early   boolean NOT NULL DEFAULT false,
	allowed        boolean,
	user_id        text,
	-- Signing out before the device has come for its tokens takes the approval back.
	login_id       uuid REFERENCES {{schema}}.gpt_logins ON DELETE SET NULL,
	auth_time      timestamptz,
	redeemed_at    timestamptz,
	created_at     timestamptz NOT NULL DEFAULT now(),
	expires_at     timestamptz NOT NULL,
	-- A decision is somebody's, and tokens follow an approval only. A user that
	-- has the name of a client would pass for one that acts for itself.
	CHECK (allowed IS NULL OR (user_id IS NOT NULL AND auth_time IS NOT NULL AND user_id <> client_id)),
	CHECK (redeemed_at IS NULL OR allowed)
);
CREATE INDEX gpt_device_codes_expires_idx ON {{schema}}.gpt_device_codes (expires_at);
CREATE INDEX gpt_device_codes_login_idx ON {{schema}}.gpt_device_codes (login_id) WHERE login_id IS NOT NULL;

-- Pushed authorization requests (RFC 9126): the request_uri as SHA-256. Using
-- one deletes its row.
CREATE TABLE {{schema}}.gpt_pushed_requests (
	digest     bytea PRIMARY KEY CHECK (octet_length(digest) = 32),
	client_id  text NOT NULL REFERENCES {{schema}}.gpt_clients ON DELETE CASCADE,
	parameters text NOT NULL, -- form-encoded, without credentials
	expires_at timestamptz NOT NULL
);
CREATE INDEX gpt_pushed_requests_expires_idx ON {{schema}}.gpt_pushed_requests (expires_at);

-- Client assertions that were used (RFC 7523 section 3, `jti`): on whichever
-- node, never again while they would hold.
CREATE TABLE {{schema}}.gpt_client_assertions (
	client_id  text NOT NULL REFERENCES {{schema}}.gpt_clients ON DELETE CASCADE,
	jti_hash   bytea NOT NULL CHECK (octet_length(jti_hash) = 32),
	expires_at timestamptz NOT NULL,
	PRIMARY KEY (client_id, jti_hash)
);
CREATE INDEX gpt_client_assertions_expires_idx ON {{schema}}.gpt_client_assertions (expires_at);

ALTER TABLE {{schema}}.gpt_device_codes ENABLE ROW LEVEL SECURITY;
ALTER TABLE {{schema}}.gpt_pushed_requests ENABLE ROW LEVEL SECURITY;
ALTER TABLE {{schema}}.gpt_client_assertions ENABLE ROW LEVEL SECURITY;
