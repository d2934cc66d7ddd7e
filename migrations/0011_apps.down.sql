ALTER TABLE {{schema}}.gpt_device_codes DROP COLUMN address, DROP COLUMN agent;
ALTER TABLE {{schema}}.gpt_authorization_codes DROP COLUMN address, DROP COLUMN agent;
ALTER TABLE {{schema}}.gpt_sessions
	DROP COLUMN calls_since, DROP COLUMN consent_address, DROP COLUMN consent_agent, DROP COLUMN client_address, DROP COLUMN client_agent;
DROP TABLE {{schema}}.gpt_session_calls;
