DROP TABLE {{schema}}.gpt_oauth_events, {{schema}}.gpt_authorization_codes, {{schema}}.gpt_sessions;
