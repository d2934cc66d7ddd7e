-- Sessions in which a service calls on for a user (RFC 8693), each made from the
-- session whose token came to the service. A table of its own, so that
-- gpt_sessions need not be read.
CREATE TABLE {{schema}}.gpt_delegated_sessions (
	session_id uuid PRIMARY KEY REFERENCES {{schema}}.gpt_sessions ON DELETE CASCADE,
	-- No foreign key: when the parent is deleted, the trigger below must still
	-- find what was made from it.
	parent_id  uuid NOT NULL CHECK (parent_id <> session_id),
	client_id  text NOT NULL,
	resource   text NOT NULL,
	-- However often a service asks, the number of rows does not grow.
	UNIQUE (parent_id, client_id, resource)
);
ALTER TABLE {{schema}}.gpt_delegated_sessions ENABLE ROW LEVEL SECURITY;

-- What was made from a session ends with it, in the same transaction. One that
-- was narrowed or changed hands ends them too: who is still allowed exchanges
-- again.
CREATE FUNCTION {{schema}}.gpt_delegation_ended() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	UPDATE {{schema}}.gpt_sessions SET revoked_at = clock_timestamp(), revoke_reason = 'parent_ended'
	WHERE id IN (SELECT session_id FROM {{schema}}.gpt_delegated_sessions WHERE parent_id = OLD.id) AND revoked_at IS NULL;
	RETURN NULL;
END $$;
CREATE TRIGGER gpt_delegation_updated AFTER UPDATE OF revoked_at, scopes, user_id, client_id, id, expires_at ON {{schema}}.gpt_sessions
	FOR EACH ROW WHEN ((OLD.revoked_at IS NULL AND NEW.revoked_at IS NOT NULL) OR NOT NEW.scopes @> OLD.scopes
		OR NEW.user_id <> OLD.user_id OR NEW.client_id <> OLD.client_id OR NEW.id <> OLD.id OR NEW.expires_at < OLD.expires_at)
	EXECUTE FUNCTION {{schema}}.gpt_delegation_ended();
ALTER TABLE {{schema}}.gpt_sessions ENABLE ALWAYS TRIGGER gpt_delegation_updated;
CREATE TRIGGER gpt_delegation_deleted AFTER DELETE ON {{schema}}.gpt_sessions
	FOR EACH ROW EXECUTE FUNCTION {{schema}}.gpt_delegation_ended();
ALTER TABLE {{schema}}.gpt_sessions ENABLE ALWAYS TRIGGER gpt_delegation_deleted;
