ALTER TABLE {{schema}}.gpt_logins DROP COLUMN logout_hint;
