-- The tables of the replaced system become ours, in place: no row is lost.
-- Whatever was added by an earlier adoption is kept (IF NOT EXISTS), so that
-- down and up again is harmless.
ALTER TABLE {{schema}}.gpt_sessions RENAME COLUMN clerk_user_id TO user_id;
ALTER TABLE {{schema}}.gpt_authorization_codes RENAME COLUMN clerk_user_id TO user_id;
ALTER TABLE {{schema}}.gpt_oauth_events RENAME COLUMN clerk_user_id TO user_id;
ALTER TABLE {{schema}}.gpt_refresh_tokens RENAME COLUMN clerk_user_id TO user_id;

ALTER TABLE {{schema}}.gpt_sessions
	ADD COLUMN IF NOT EXISTS scopes           text[] NOT NULL DEFAULT '{}',
	ADD COLUMN IF NOT EXISTS granted_scopes   text[] NOT NULL DEFAULT '{}',
	ADD COLUMN IF NOT EXISTS client_id        text,
	ADD COLUMN IF NOT EXISTS resource         text,
	ADD COLUMN IF NOT EXISTS redirect_uri     text,
	ADD COLUMN IF NOT EXISTS rt_counter       bigint NOT NULL DEFAULT 0,
	ADD COLUMN IF NOT EXISTS rt_previous      bigint,
	ADD COLUMN IF NOT EXISTS rt_rotation      xid8,
	ADD COLUMN IF NOT EXISTS rotated_at       timestamptz,
	ADD COLUMN IF NOT EXISTS auth_time        timestamptz,
	ADD COLUMN IF NOT EXISTS expires_at       timestamptz,
	ADD COLUMN IF NOT EXISTS idle_expires_at  timestamptz,
	ADD COLUMN IF NOT EXISTS tokens_expire_at timestamptz NOT NULL DEFAULT now(),
	ADD COLUMN IF NOT EXISTS revoked_at       timestamptz,
	ADD COLUMN IF NOT EXISTS revoke_reason    text;

-- A session lives as long as its refresh token. One without a live token could
-- do nothing there and is kept as revoked.
UPDATE {{schema}}.gpt_sessions s SET
	client_id = {{client}},
	auth_time = s.created_at,
	granted_scopes = ARRAY(SELECT DISTINCT unnest(s.granted_scopes || s.scopes)),
	expires_at = coalesce(t.expires_at, now()),
	revoked_at = CASE WHEN t.id IS NULL OR t.revoked_at IS NOT NULL OR t.rotated_to IS NOT NULL THEN coalesce(t.revoked_at, now()) END,
	revoke_reason = CASE WHEN t.id IS NULL OR t.revoked_at IS NOT NULL OR t.rotated_to IS NOT NULL THEN 'adopted_without_live_refresh_token' END
FROM {{schema}}.gpt_sessions o LEFT JOIN {{schema}}.gpt_refresh_tokens t ON t.id = o.refresh_token_id
WHERE o.id = s.id AND s.client_id IS NULL;
-- Clients that sessions of an earlier adoption belong to, and the one that was named.
INSERT INTO {{schema}}.gpt_clients (client_id)
SELECT {{client}} UNION SELECT client_id FROM {{schema}}.gpt_sessions WHERE client_id IS NOT NULL
ON CONFLICT DO NOTHING;
ALTER TABLE {{schema}}.gpt_sessions
	ALTER COLUMN client_id SET NOT NULL,
	ALTER COLUMN auth_time SET NOT NULL, ALTER COLUMN auth_time SET DEFAULT now(),
	ALTER COLUMN expires_at SET NOT NULL;

ALTER TABLE {{schema}}.gpt_authorization_codes
	ADD COLUMN IF NOT EXISTS code_hash         bytea,
	ADD COLUMN IF NOT EXISTS request_id        uuid,
	ADD COLUMN IF NOT EXISTS client_id         text,
	ADD COLUMN IF NOT EXISTS login_id          uuid,
	ADD COLUMN IF NOT EXISTS session_id        uuid,
	ADD COLUMN IF NOT EXISTS redirect_uri_sent boolean NOT NULL DEFAULT true,
	ADD COLUMN IF NOT EXISTS resource          text,
	ADD COLUMN IF NOT EXISTS scopes            text[] NOT NULL DEFAULT '{}',
	ADD COLUMN IF NOT EXISTS auth_time         timestamptz,
	ADD COLUMN IF NOT EXISTS failed_attempts   int NOT NULL DEFAULT 0,
	ADD COLUMN IF NOT EXISTS adopted           boolean NOT NULL DEFAULT false,
	ALTER COLUMN code_challenge DROP NOT NULL,
	ALTER COLUMN code_challenge_method DROP NOT NULL;
-- The replaced system stored codes in the clear, bound to no client and with an
-- unchecked redirect URI: the rows stay, hashed and expired; none is redeemed.
UPDATE {{schema}}.gpt_authorization_codes
SET code_hash = sha256(convert_to(code, 'UTF8')), expires_at = least(expires_at, now()), adopted = true
WHERE code_hash IS NULL;
UPDATE {{schema}}.gpt_authorization_codes SET login_id = NULL WHERE login_id IS NOT NULL; -- of an earlier adoption
ALTER TABLE {{schema}}.gpt_authorization_codes ALTER COLUMN code_hash SET NOT NULL, DROP COLUMN code;
INSERT INTO {{schema}}.gpt_clients (client_id)
SELECT DISTINCT client_id FROM {{schema}}.gpt_authorization_codes WHERE client_id IS NOT NULL ON CONFLICT DO NOTHING;

ALTER TABLE {{schema}}.gpt_oauth_events
	ADD COLUMN IF NOT EXISTS client_id  text,
	ADD COLUMN IF NOT EXISTS session_id uuid,
	ADD COLUMN IF NOT EXISTS request_id text;
ALTER TABLE {{schema}}.gpt_refresh_tokens ENABLE ROW LEVEL SECURITY;

ALTER TABLE {{schema}}.gpt_sessions
	ADD CONSTRAINT gpt_sessions_client_fk FOREIGN KEY (client_id) REFERENCES {{schema}}.gpt_clients ON DELETE CASCADE,
	ADD CONSTRAINT gpt_sessions_user_check CHECK (user_id <> ''),
	ADD CONSTRAINT gpt_sessions_counter_check CHECK (rt_counter >= 0 AND rt_previous < rt_counter AND (rt_counter > 0) = (rotated_at IS NOT NULL)),
	ADD CONSTRAINT gpt_sessions_reason_check CHECK (revoke_reason IS NULL OR revoked_at IS NOT NULL),
	-- What is active was granted once: consent is never skipped for more than that.
	ADD CONSTRAINT gpt_sessions_granted_check CHECK (granted_scopes @> scopes),
	ADD CONSTRAINT gpt_sessions_scopes_check CHECK (array_position(scopes, NULL) IS NULL AND array_position(granted_scopes, NULL) IS NULL);
ALTER TABLE {{schema}}.gpt_authorization_codes
	ADD CONSTRAINT gpt_codes_hash_key UNIQUE (code_hash),
	ADD CONSTRAINT gpt_codes_request_key UNIQUE (request_id),
	ADD CONSTRAINT gpt_codes_hash_check CHECK (octet_length(code_hash) = 32),
	ADD CONSTRAINT gpt_codes_client_fk FOREIGN KEY (client_id) REFERENCES {{schema}}.gpt_clients ON DELETE CASCADE,
	-- The login may end first: an unredeemed code then dies, a redeemed one stays to tell a replay.
	ADD CONSTRAINT gpt_codes_login_fk FOREIGN KEY (login_id) REFERENCES {{schema}}.gpt_logins ON DELETE SET NULL,
	ADD CONSTRAINT gpt_codes_session_fk FOREIGN KEY (session_id) REFERENCES {{schema}}.gpt_sessions ON DELETE SET NULL,
	-- An unbound code (RFC 6749 section 4.1.2) exists only as a relic of the replaced system.
	ADD CONSTRAINT gpt_codes_bound_check CHECK (adopted OR (client_id IS NOT NULL AND request_id IS NOT NULL AND resource IS NOT NULL AND auth_time IS NOT NULL)),
	ADD CONSTRAINT gpt_codes_scopes_check CHECK (array_position(scopes, NULL) IS NULL);
ALTER TABLE {{schema}}.gpt_sessions ENABLE ROW LEVEL SECURITY;
ALTER TABLE {{schema}}.gpt_authorization_codes ENABLE ROW LEVEL SECURITY;
ALTER TABLE {{schema}}.gpt_oauth_events ENABLE ROW LEVEL SECURITY;
