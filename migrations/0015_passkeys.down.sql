-- The version before does not know the way in which these were made.
DELETE FROM {{schema}}.gpt_logins WHERE method = 'passkey';
ALTER TABLE {{schema}}.gpt_logins DROP COLUMN passkey_id;
DROP TABLE {{schema}}.gpt_passkeys;
