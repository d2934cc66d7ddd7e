DROP TRIGGER gpt_revocations_truncated ON {{schema}}.gpt_revocations;
DROP TRIGGER gpt_users_truncated ON {{schema}}.gpt_users;
DROP FUNCTION {{schema}}.gpt_users_truncated();
CREATE OR REPLACE TRIGGER gpt_session_updated AFTER UPDATE OF revoked_at, scopes, user_id, client_id, id, expires_at ON {{schema}}.gpt_sessions
	FOR EACH ROW WHEN ((OLD.revoked_at IS NULL AND NEW.revoked_at IS NOT NULL) OR NOT NEW.scopes @> OLD.scopes
		OR NEW.user_id <> OLD.user_id OR NEW.client_id <> OLD.client_id OR NEW.id <> OLD.id OR NEW.expires_at < OLD.expires_at)
	EXECUTE FUNCTION {{schema}}.gpt_session_changed();
ALTER TABLE {{schema}}.gpt_sessions ENABLE ALWAYS TRIGGER gpt_session_updated;
CREATE OR REPLACE FUNCTION {{schema}}.gpt_session_changed() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	skew CONSTANT interval := interval '1 minute'; -- of the nodes' clocks
	over boolean := TG_OP = 'DELETE';
BEGIN
	IF TG_OP = 'UPDATE' THEN
		over := NEW.revoked_at IS NOT NULL OR NEW.id <> OLD.id OR NEW.user_id <> OLD.user_id OR NEW.client_id <> OLD.client_id;
	END IF;
	-- After its last token has expired there is nothing left to cut off.
	IF OLD.tokens_expire_at + skew > clock_timestamp() THEN
		INSERT INTO {{schema}}.gpt_revocations (session_id, ended, expires_at) VALUES (OLD.id, over, OLD.tokens_expire_at + skew);
		PERFORM pg_notify('gpt_revocations', '');
	END IF;
	RETURN NULL;
END $$;
