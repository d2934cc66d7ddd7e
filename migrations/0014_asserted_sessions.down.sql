-- To the version before, they would be sessions that their users allowed.
UPDATE {{schema}}.gpt_sessions SET revoked_at = clock_timestamp(), revoke_reason = 'migrated_down' WHERE asserted_by IS NOT NULL AND revoked_at IS NULL;
ALTER TABLE {{schema}}.gpt_sessions DROP COLUMN asserted_by;
