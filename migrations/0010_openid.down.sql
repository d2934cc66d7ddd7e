ALTER TABLE {{schema}}.gpt_sessions DROP COLUMN login_method;
ALTER TABLE {{schema}}.gpt_device_codes DROP COLUMN login_method;
ALTER TABLE {{schema}}.gpt_authorization_codes DROP COLUMN nonce, DROP COLUMN login_method;
ALTER TABLE {{schema}}.gpt_users DROP COLUMN profile;
