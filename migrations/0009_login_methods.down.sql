CREATE OR REPLACE FUNCTION {{schema}}.gpt_user_ended() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	-- Logins first: a redemption in progress holds its login, and its session is
	-- seen by the statement after.
	DELETE FROM {{schema}}.gpt_logins WHERE user_id = OLD.id;
	UPDATE {{schema}}.gpt_sessions SET revoked_at = clock_timestamp(), revoke_reason = 'user_ended'
	WHERE user_id = OLD.id AND revoked_at IS NULL;
	RETURN NULL;
END $$;
DROP TABLE {{schema}}.gpt_used_once;
ALTER TABLE {{schema}}.gpt_logins DROP COLUMN method, DROP COLUMN provider_session;
DROP TABLE {{schema}}.gpt_identities;
-- Who signed in elsewhere cannot be a user of the version before; their sessions
-- go on, as those of users that it does not know.
ALTER TABLE {{schema}}.gpt_users DISABLE TRIGGER gpt_user_deleted;
DELETE FROM {{schema}}.gpt_users WHERE email IS NULL;
ALTER TABLE {{schema}}.gpt_users ENABLE ALWAYS TRIGGER gpt_user_deleted;
DELETE FROM {{schema}}.gpt_logins l WHERE NOT EXISTS (SELECT FROM {{schema}}.gpt_users u WHERE u.id = l.user_id);
ALTER TABLE {{schema}}.gpt_users
	DROP CONSTRAINT gpt_users_password_check,
	DROP COLUMN name,
	DROP COLUMN claims,
	ALTER COLUMN email SET NOT NULL,
	ALTER COLUMN password_hash SET NOT NULL;
