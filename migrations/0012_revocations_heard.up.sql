-- What a node has in memory is judged by its own clock, and a database that
-- fails over or is corrected may jump. So a revocation is written for every
-- session that was in use within a day by the database's clock, whether or not
-- its tokens seem to have expired, and each can be heard for a minute at least.
-- A session that changes hands goes on, for the tokens it issues from then on.
CREATE OR REPLACE FUNCTION {{schema}}.gpt_session_changed() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	skew CONSTANT interval := interval '1 minute'; -- of the nodes' clocks
	jump CONSTANT interval := interval '1 day'; -- of the database's
	over boolean := TG_OP = 'DELETE';
BEGIN
	IF TG_OP = 'UPDATE' THEN
		over := NEW.revoked_at IS NOT NULL OR NEW.id <> OLD.id;
	END IF;
	IF OLD.tokens_expire_at + jump > clock_timestamp() THEN
		INSERT INTO {{schema}}.gpt_revocations (session_id, ended, expires_at)
		VALUES (OLD.id, over, greatest(OLD.tokens_expire_at, clock_timestamp()) + skew);
		PERFORM pg_notify('gpt_revocations', '');
	END IF;
	RETURN NULL;
END $$;

-- As before, and when the idle bound comes nearer. A refresh moves it away.
CREATE OR REPLACE TRIGGER gpt_session_updated AFTER UPDATE OF revoked_at, scopes, user_id, client_id, id, expires_at, idle_expires_at ON {{schema}}.gpt_sessions
	FOR EACH ROW WHEN ((OLD.revoked_at IS NULL AND NEW.revoked_at IS NOT NULL) OR NOT NEW.scopes @> OLD.scopes
		OR NEW.user_id <> OLD.user_id OR NEW.client_id <> OLD.client_id OR NEW.id <> OLD.id OR NEW.expires_at < OLD.expires_at
		OR NEW.idle_expires_at < coalesce(OLD.idle_expires_at, OLD.expires_at))
	EXECUTE FUNCTION {{schema}}.gpt_session_changed();
ALTER TABLE {{schema}}.gpt_sessions ENABLE ALWAYS TRIGGER gpt_session_updated;

-- Sessions have no foreign key to users, so that TRUNCATE ... CASCADE does not
-- come to them.
CREATE FUNCTION {{schema}}.gpt_users_truncated() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	DELETE FROM {{schema}}.gpt_logins WHERE user_id IN (SELECT id FROM {{schema}}.gpt_users);
	UPDATE {{schema}}.gpt_sessions SET revoked_at = clock_timestamp(), revoke_reason = 'user_ended'
	WHERE user_id IN (SELECT id FROM {{schema}}.gpt_users) AND revoked_at IS NULL;
	RETURN NULL;
END $$;
CREATE TRIGGER gpt_users_truncated BEFORE TRUNCATE ON {{schema}}.gpt_users
	FOR EACH STATEMENT EXECUTE FUNCTION {{schema}}.gpt_users_truncated();
ALTER TABLE {{schema}}.gpt_users ENABLE ALWAYS TRIGGER gpt_users_truncated;

-- Whoever empties this table takes away what the nodes have not heard yet: they
-- read everything again.
CREATE TRIGGER gpt_revocations_truncated AFTER TRUNCATE ON {{schema}}.gpt_revocations
	FOR EACH STATEMENT EXECUTE FUNCTION {{schema}}.gpt_sessions_truncated();
ALTER TABLE {{schema}}.gpt_revocations ENABLE ALWAYS TRIGGER gpt_revocations_truncated;
