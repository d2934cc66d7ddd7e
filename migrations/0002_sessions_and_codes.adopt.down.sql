-- Gives the tables back to the replaced system. The columns we added stay,
-- nullable and unread by it: nothing is lost, and adopting again finds them.
ALTER TABLE {{schema}}.gpt_sessions
	DROP CONSTRAINT gpt_sessions_client_fk, DROP CONSTRAINT gpt_sessions_user_check, DROP CONSTRAINT gpt_sessions_counter_check,
	DROP CONSTRAINT gpt_sessions_reason_check, DROP CONSTRAINT gpt_sessions_granted_check, DROP CONSTRAINT gpt_sessions_scopes_check,
	ALTER COLUMN client_id DROP NOT NULL, ALTER COLUMN auth_time DROP NOT NULL, ALTER COLUMN expires_at DROP NOT NULL;
ALTER TABLE {{schema}}.gpt_authorization_codes
	DROP CONSTRAINT gpt_codes_session_fk, DROP CONSTRAINT gpt_codes_login_fk, DROP CONSTRAINT gpt_codes_client_fk,
	DROP CONSTRAINT gpt_codes_hash_key, DROP CONSTRAINT gpt_codes_request_key, DROP CONSTRAINT gpt_codes_hash_check,
	DROP CONSTRAINT gpt_codes_bound_check, DROP CONSTRAINT gpt_codes_scopes_check,
	ALTER COLUMN code_hash DROP NOT NULL,
	ADD COLUMN code text;
UPDATE {{schema}}.gpt_authorization_codes SET code = 'sha256:' || encode(code_hash, 'hex');
ALTER TABLE {{schema}}.gpt_authorization_codes ALTER COLUMN code SET NOT NULL, ADD UNIQUE (code);
CREATE INDEX idx_gpt_auth_codes_code ON {{schema}}.gpt_authorization_codes (code);
CREATE INDEX idx_gpt_auth_codes_active ON {{schema}}.gpt_authorization_codes (code) WHERE used_at IS NULL;
ALTER TABLE {{schema}}.gpt_sessions RENAME COLUMN user_id TO clerk_user_id;
ALTER TABLE {{schema}}.gpt_authorization_codes RENAME COLUMN user_id TO clerk_user_id;
ALTER TABLE {{schema}}.gpt_oauth_events RENAME COLUMN user_id TO clerk_user_id;
ALTER TABLE {{schema}}.gpt_refresh_tokens RENAME COLUMN user_id TO clerk_user_id;
