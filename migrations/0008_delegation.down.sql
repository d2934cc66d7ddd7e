-- A binary that knows nothing of delegation must not go on with what came of it.
UPDATE {{schema}}.gpt_sessions SET revoked_at = clock_timestamp(), revoke_reason = 'delegation_removed'
WHERE id IN (SELECT session_id FROM {{schema}}.gpt_delegated_sessions) AND revoked_at IS NULL;
DROP TRIGGER gpt_delegation_deleted ON {{schema}}.gpt_sessions;
DROP TRIGGER gpt_delegation_updated ON {{schema}}.gpt_sessions;
DROP FUNCTION {{schema}}.gpt_delegation_ended();
DROP TABLE {{schema}}.gpt_delegated_sessions;
