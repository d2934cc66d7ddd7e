-- How often a session used a scope, by day (UTC). Written in batches, for the
-- page of connected apps; removed after 30 days.
CREATE TABLE {{schema}}.gpt_session_calls (
	session_id uuid NOT NULL REFERENCES {{schema}}.gpt_sessions ON DELETE CASCADE,
	day        date NOT NULL,
	scope      text NOT NULL,
	calls      bigint NOT NULL CHECK (calls > 0),
	PRIMARY KEY (session_id, day, scope)
);
CREATE INDEX gpt_session_calls_day_idx ON {{schema}}.gpt_session_calls (day);
ALTER TABLE {{schema}}.gpt_session_calls ENABLE ROW LEVEL SECURITY;

ALTER TABLE {{schema}}.gpt_sessions
	-- Since when calls are counted: of a session that is older than this table no
	-- one can say that it never used a scope.
	ADD COLUMN calls_since     timestamptz NOT NULL DEFAULT now(),
	-- Where the user was who allowed it, and where its client last fetched tokens.
	ADD COLUMN consent_address text,
	ADD COLUMN consent_agent   text,
	ADD COLUMN client_address  text,
	ADD COLUMN client_agent    text;
-- Kept with the code until the session is made from it.
ALTER TABLE {{schema}}.gpt_authorization_codes
	ADD COLUMN address text,
	ADD COLUMN agent   text;
ALTER TABLE {{schema}}.gpt_device_codes
	ADD COLUMN address text,
	ADD COLUMN agent   text;
