-- Users who sign in elsewhere have no email address and no password here.
ALTER TABLE {{schema}}.gpt_users
	ALTER COLUMN email DROP NOT NULL,
	ALTER COLUMN password_hash DROP NOT NULL,
	ADD COLUMN name   text,
	ADD COLUMN claims jsonb NOT NULL DEFAULT '{}',
	-- A password without an address to enter it under would belong to nobody.
	-- NOT VALID: every row there is has both, and a scan of them would hold the
	-- table for its length.
	ADD CONSTRAINT gpt_users_password_check CHECK ((email IS NULL) = (password_hash IS NULL)) NOT VALID;

-- Whom another authority (an OpenID provider) names by a
-- subject of its own. UNIQUE: no two authorities can name one user, so that none
-- can take over another's.
CREATE TABLE {{schema}}.gpt_identities (
	authority  text NOT NULL CHECK (authority <> ''),
	subject    text NOT NULL CHECK (subject <> '' AND octet_length(subject) <= 255),
	user_id    text NOT NULL UNIQUE REFERENCES {{schema}}.gpt_users ON DELETE CASCADE,
	created_at timestamptz NOT NULL DEFAULT now(),
	PRIMARY KEY (authority, subject)
);
ALTER TABLE {{schema}}.gpt_identities ENABLE ROW LEVEL SECURITY;

ALTER TABLE {{schema}}.gpt_logins
	ADD COLUMN method           text NOT NULL DEFAULT 'password' CHECK (method <> ''),
	ADD COLUMN provider_session text; -- `sid` of an OpenID provider
CREATE INDEX gpt_logins_provider_session_idx ON {{schema}}.gpt_logins (provider_session) WHERE provider_session IS NOT NULL;

-- What must not come twice while it could be accepted: answers of
-- providers.
CREATE TABLE {{schema}}.gpt_used_once (
	purpose    text NOT NULL,
	digest     bytea NOT NULL CHECK (octet_length(digest) = 32),
	expires_at timestamptz NOT NULL,
	PRIMARY KEY (purpose, digest)
);
CREATE INDEX gpt_used_once_expires_idx ON {{schema}}.gpt_used_once (expires_at);
ALTER TABLE {{schema}}.gpt_used_once ENABLE ROW LEVEL SECURITY;

-- As before, and with an event: whoever deletes or disables a user, by whichever
-- way, leaves a trace of what ended.
CREATE OR REPLACE FUNCTION {{schema}}.gpt_user_ended() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	logins bigint;
	sessions bigint;
BEGIN
	-- Logins first: a redemption in progress holds its login, and its session is
	-- seen by the statement after.
	DELETE FROM {{schema}}.gpt_logins WHERE user_id = OLD.id;
	GET DIAGNOSTICS logins = ROW_COUNT;
	UPDATE {{schema}}.gpt_sessions SET revoked_at = clock_timestamp(), revoke_reason = 'user_ended'
	WHERE user_id = OLD.id AND revoked_at IS NULL;
	GET DIAGNOSTICS sessions = ROW_COUNT;
	INSERT INTO {{schema}}.gpt_oauth_events (event_type, user_id, metadata)
	VALUES ('gpt.oauth.user_ended', OLD.id, jsonb_build_object('by', lower(TG_OP), 'logins', logins, 'sessions', sessions));
	RETURN NULL;
END $$;
