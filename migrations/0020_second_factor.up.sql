-- The second factor of users of `login password`: codes by time, RFC 6238.
CREATE TABLE {{schema}}.gpt_second_factors (
	user_id         text PRIMARY KEY REFERENCES {{schema}}.gpt_users ON DELETE CASCADE,
	sealed          bytea NOT NULL, -- the secret, under a key from the root secret
	-- The time step of the last code that counted: none counts twice, on no node.
	last_step       bigint NOT NULL,
	-- Attempts since then, whatever came of them, from wherever they were made.
	attempts        integer NOT NULL DEFAULT 0 CHECK (attempts >= 0),
	attempts_since  timestamptz NOT NULL DEFAULT now(),
	created_at      timestamptz NOT NULL DEFAULT now()
);
ALTER TABLE {{schema}}.gpt_second_factors ENABLE ROW LEVEL SECURITY;

-- What a user has who has lost the device. Each counts once; stored as SHA-256.
CREATE TABLE {{schema}}.gpt_recovery_codes (
	user_id text NOT NULL REFERENCES {{schema}}.gpt_second_factors ON DELETE CASCADE,
	digest  bytea NOT NULL CHECK (octet_length(digest) = 32),
	PRIMARY KEY (user_id, digest)
);
ALTER TABLE {{schema}}.gpt_recovery_codes ENABLE ROW LEVEL SECURITY;
