ALTER TABLE {{schema}}.gpt_users DROP CONSTRAINT gpt_users_claims_check;
DROP TRIGGER gpt_user_claims_changed ON {{schema}}.gpt_users;
DROP FUNCTION {{schema}}.gpt_user_claims_changed();
