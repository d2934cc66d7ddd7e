-- What is known of a user, to be told to clients that the user allowed it:
-- claims of OpenID Connect Core section 5.1. NOT VALID: no row has any yet, and
-- none need be read under the lock.
ALTER TABLE {{schema}}.gpt_users ADD COLUMN profile jsonb NOT NULL DEFAULT '{}',
	ADD CONSTRAINT gpt_users_profile_check CHECK (jsonb_typeof(profile) = 'object') NOT VALID;

-- What an ID token repeats of the request (nonce), and how its user had signed
-- in.
ALTER TABLE {{schema}}.gpt_authorization_codes ADD COLUMN nonce text, ADD COLUMN login_method text;
ALTER TABLE {{schema}}.gpt_device_codes ADD COLUMN login_method text;
ALTER TABLE {{schema}}.gpt_sessions ADD COLUMN login_method text;
