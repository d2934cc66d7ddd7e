-- What users of `login password` sign in with in place of the password: the
-- public half of a key that never leaves their device or password manager.
CREATE TABLE {{schema}}.gpt_passkeys (
	id              uuid PRIMARY KEY DEFAULT gen_random_uuid(),
	-- UNIQUE: a credential that two users had would sign in as either.
	credential_id   bytea NOT NULL UNIQUE CHECK (octet_length(credential_id) BETWEEN 1 AND 1023),
	user_id         text NOT NULL REFERENCES {{schema}}.gpt_users ON DELETE CASCADE,
	name            text NOT NULL CHECK (name <> ''),
	public_key      bytea NOT NULL,
	sign_count      bigint NOT NULL CHECK (sign_count >= 0),
	backup_eligible boolean NOT NULL,
	backed_up       boolean NOT NULL,
	transports      text[] NOT NULL DEFAULT '{}',
	created_at      timestamptz NOT NULL DEFAULT now(),
	last_used_at    timestamptz,
	CHECK (backup_eligible OR NOT backed_up)
);
CREATE INDEX gpt_passkeys_user_id_idx ON {{schema}}.gpt_passkeys (user_id);
ALTER TABLE {{schema}}.gpt_passkeys ENABLE ROW LEVEL SECURITY;

-- So that the logins made with a passkey end when it is removed.
ALTER TABLE {{schema}}.gpt_logins ADD COLUMN passkey_id uuid REFERENCES {{schema}}.gpt_passkeys ON DELETE SET NULL;
CREATE INDEX gpt_logins_passkey_id_idx ON {{schema}}.gpt_logins (passkey_id) WHERE passkey_id IS NOT NULL;
