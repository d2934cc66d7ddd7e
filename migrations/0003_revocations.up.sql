-- Revocation is a row, written by trigger: whoever changes a session, from any
-- psql, with any role that may, cuts every node off by the same path.
CREATE TABLE {{schema}}.gpt_revocations (
	id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	-- Readers poll by transaction: rows do not become visible in the order of id.
	xact       xid8 NOT NULL DEFAULT pg_current_xact_id(),
	session_id uuid,                 -- NULL: every session made before created_at
	ended      boolean NOT NULL,     -- false: changed, read it again
	created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
	expires_at timestamptz NOT NULL  -- no token it concerns outlives this
);
CREATE INDEX gpt_revocations_xact_idx ON {{schema}}.gpt_revocations (xact);
CREATE INDEX gpt_revocations_expires_at_idx ON {{schema}}.gpt_revocations (expires_at);
ALTER TABLE {{schema}}.gpt_revocations ENABLE ROW LEVEL SECURITY;

-- SECURITY DEFINER: the role that may update sessions need not be able to write
-- here. The search_path is fixed, else that role could put its own functions in front.
CREATE FUNCTION {{schema}}.gpt_session_guard() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	NEW.granted_scopes := ARRAY(SELECT DISTINCT unnest(NEW.granted_scopes || NEW.scopes) ORDER BY 1);
	IF TG_OP = 'UPDATE' AND OLD.revoked_at IS NOT NULL THEN
		IF NEW.revoked_at IS NULL THEN
			RAISE EXCEPTION 'session % is revoked; a revocation cannot be undone', OLD.id USING ERRCODE = 'integrity_constraint_violation';
		END IF;
		-- Revoking again (a statement over all of a user's sessions) changes nothing.
		NEW.revoked_at := OLD.revoked_at;
		NEW.revoke_reason := OLD.revoke_reason;
	END IF;
	RETURN NEW;
END $$;

CREATE FUNCTION {{schema}}.gpt_session_changed() RETURNS trigger LANGUAGE plpgsql
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

CREATE FUNCTION {{schema}}.gpt_sessions_truncated() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	-- The rows are gone and with them when their tokens expire: longer than any may live.
	INSERT INTO {{schema}}.gpt_revocations (session_id, ended, expires_at) VALUES (NULL, true, clock_timestamp() + interval '31 days');
	PERFORM pg_notify('gpt_revocations', '');
	RETURN NULL;
END $$;

CREATE FUNCTION {{schema}}.gpt_user_ended() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	-- Logins first: a redemption in progress holds its login, and its session is
	-- seen by the statement after.
	DELETE FROM {{schema}}.gpt_logins WHERE user_id = OLD.id;
	UPDATE {{schema}}.gpt_sessions SET revoked_at = clock_timestamp(), revoke_reason = 'user_ended'
	WHERE user_id = OLD.id AND revoked_at IS NULL;
	RETURN NULL;
END $$;

CREATE FUNCTION {{schema}}.gpt_client_ended() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	UPDATE {{schema}}.gpt_sessions SET revoked_at = clock_timestamp(), revoke_reason = 'client_ended'
	WHERE client_id = OLD.client_id AND revoked_at IS NULL;
	RETURN NULL;
END $$;

-- ENABLE ALWAYS: session_replication_role = replica must not silence them.
CREATE TRIGGER gpt_session_guard BEFORE INSERT OR UPDATE OF revoked_at, revoke_reason, scopes, granted_scopes ON {{schema}}.gpt_sessions
	FOR EACH ROW EXECUTE FUNCTION {{schema}}.gpt_session_guard();
ALTER TABLE {{schema}}.gpt_sessions ENABLE ALWAYS TRIGGER gpt_session_guard;
-- Widening scopes takes nothing from anyone; narrowing does, and so does ending sooner.
-- A refresh and last_active touch none of these columns.
CREATE TRIGGER gpt_session_updated AFTER UPDATE OF revoked_at, scopes, user_id, client_id, id, expires_at ON {{schema}}.gpt_sessions
	FOR EACH ROW WHEN ((OLD.revoked_at IS NULL AND NEW.revoked_at IS NOT NULL) OR NOT NEW.scopes @> OLD.scopes
		OR NEW.user_id <> OLD.user_id OR NEW.client_id <> OLD.client_id OR NEW.id <> OLD.id OR NEW.expires_at < OLD.expires_at)
	EXECUTE FUNCTION {{schema}}.gpt_session_changed();
ALTER TABLE {{schema}}.gpt_sessions ENABLE ALWAYS TRIGGER gpt_session_updated;
CREATE TRIGGER gpt_session_deleted AFTER DELETE ON {{schema}}.gpt_sessions
	FOR EACH ROW WHEN (OLD.revoked_at IS NULL) EXECUTE FUNCTION {{schema}}.gpt_session_changed();
ALTER TABLE {{schema}}.gpt_sessions ENABLE ALWAYS TRIGGER gpt_session_deleted;
CREATE TRIGGER gpt_sessions_truncated AFTER TRUNCATE ON {{schema}}.gpt_sessions
	FOR EACH STATEMENT EXECUTE FUNCTION {{schema}}.gpt_sessions_truncated();
ALTER TABLE {{schema}}.gpt_sessions ENABLE ALWAYS TRIGGER gpt_sessions_truncated;
CREATE TRIGGER gpt_user_disabled AFTER UPDATE OF disabled_at ON {{schema}}.gpt_users
	FOR EACH ROW WHEN (OLD.disabled_at IS NULL AND NEW.disabled_at IS NOT NULL) EXECUTE FUNCTION {{schema}}.gpt_user_ended();
ALTER TABLE {{schema}}.gpt_users ENABLE ALWAYS TRIGGER gpt_user_disabled;
CREATE TRIGGER gpt_user_deleted AFTER DELETE ON {{schema}}.gpt_users
	FOR EACH ROW EXECUTE FUNCTION {{schema}}.gpt_user_ended();
ALTER TABLE {{schema}}.gpt_users ENABLE ALWAYS TRIGGER gpt_user_deleted;
-- Deleting a client cascades to its sessions, whose own trigger then fires.
CREATE TRIGGER gpt_client_disabled AFTER UPDATE OF disabled_at ON {{schema}}.gpt_clients
	FOR EACH ROW WHEN (OLD.disabled_at IS NULL AND NEW.disabled_at IS NOT NULL) EXECUTE FUNCTION {{schema}}.gpt_client_ended();
ALTER TABLE {{schema}}.gpt_clients ENABLE ALWAYS TRIGGER gpt_client_disabled;
