-- Scope rules may ask for claims of the user, which the nodes know with each
-- session: when they change, every live session is read again.
CREATE FUNCTION {{schema}}.gpt_user_claims_changed() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	skew CONSTANT interval := interval '1 minute'; -- of the nodes' clocks
	jump CONSTANT interval := interval '1 day'; -- of the database's
BEGIN
	INSERT INTO {{schema}}.gpt_revocations (session_id, ended, expires_at)
	SELECT id, false, greatest(tokens_expire_at, clock_timestamp()) + skew FROM {{schema}}.gpt_sessions
	WHERE user_id = NEW.id AND revoked_at IS NULL AND tokens_expire_at + jump > clock_timestamp();
	IF FOUND THEN
		PERFORM pg_notify('gpt_revocations', '');
	END IF;
	RETURN NULL;
END $$;
CREATE TRIGGER gpt_user_claims_changed AFTER UPDATE OF claims ON {{schema}}.gpt_users
	FOR EACH ROW WHEN (OLD.claims IS DISTINCT FROM NEW.claims) EXECUTE FUNCTION {{schema}}.gpt_user_claims_changed();
ALTER TABLE {{schema}}.gpt_users ENABLE ALWAYS TRIGGER gpt_user_claims_changed;
-- Claims have names. NOT VALID: what is there was written as objects, and a scan
-- of it would hold the table for its length.
ALTER TABLE {{schema}}.gpt_users ADD CONSTRAINT gpt_users_claims_check CHECK (jsonb_typeof(claims) = 'object') NOT VALID;
