-- Links by which a user of `login password` sets a new password. The token is
-- stored as SHA-256 only.
CREATE TABLE {{schema}}.gpt_password_resets (
	digest          bytea PRIMARY KEY CHECK (octet_length(digest) = 32),
	user_id         text NOT NULL REFERENCES {{schema}}.gpt_users ON DELETE CASCADE,
	ends_sessions   boolean NOT NULL,
	removes_factors boolean NOT NULL,
	created_at      timestamptz NOT NULL DEFAULT now(),
	expires_at      timestamptz NOT NULL
);
CREATE INDEX gpt_password_resets_user_id_idx ON {{schema}}.gpt_password_resets (user_id);
CREATE INDEX gpt_password_resets_expires_at_idx ON {{schema}}.gpt_password_resets (expires_at);
ALTER TABLE {{schema}}.gpt_password_resets ENABLE ROW LEVEL SECURITY;
