-- A client's live permission to act for one user.
CREATE TABLE {{schema}}.gpt_sessions (
	id               uuid PRIMARY KEY DEFAULT gen_random_uuid(),
	user_id          text NOT NULL,
	client_id        text NOT NULL,
	resource         text,
	redirect_uri     text,
	scopes           text[] NOT NULL DEFAULT '{}',
	granted_scopes   text[] NOT NULL DEFAULT '{}',
	rt_counter       bigint NOT NULL DEFAULT 0,
	rt_previous      bigint,
	rt_rotation      xid8,
	rotated_at       timestamptz,
	auth_time        timestamptz NOT NULL DEFAULT now(),
	created_at       timestamptz NOT NULL DEFAULT now(),
	last_active      timestamptz NOT NULL DEFAULT now(),
	expires_at       timestamptz NOT NULL,
	idle_expires_at  timestamptz,
	tokens_expire_at timestamptz NOT NULL DEFAULT now(),
	revoked_at       timestamptz,
	revoke_reason    text
);

CREATE TABLE {{schema}}.gpt_authorization_codes (
	id                uuid PRIMARY KEY DEFAULT gen_random_uuid(),
	code_hash         bytea NOT NULL,
	request_id        uuid,
	client_id         text,
	user_id           text NOT NULL,
	login_id          uuid,
	session_id        uuid,
	redirect_uri      text NOT NULL,
	redirect_uri_sent boolean NOT NULL DEFAULT true,
	resource          text,
	scopes            text[] NOT NULL DEFAULT '{}',
	code_challenge    text,
	auth_time         timestamptz,
	created_at        timestamptz NOT NULL DEFAULT now(),
	expires_at        timestamptz NOT NULL,
	used_at           timestamptz,
	failed_attempts   int NOT NULL DEFAULT 0,
	adopted           boolean NOT NULL DEFAULT false
);

-- The audit trail.
CREATE TABLE {{schema}}.gpt_oauth_events (
	id         uuid PRIMARY KEY DEFAULT gen_random_uuid(),
	event_type text NOT NULL,
	user_id    text,
	client_id  text,
	session_id uuid,
	request_id text,
	metadata   jsonb DEFAULT '{}',
	ip_address text,
	created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX idx_gpt_oauth_events_type ON {{schema}}.gpt_oauth_events (event_type);
CREATE INDEX idx_gpt_oauth_events_user_id ON {{schema}}.gpt_oauth_events (user_id);
CREATE INDEX idx_gpt_oauth_events_created_at ON {{schema}}.gpt_oauth_events (created_at DESC);

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
