DROP TABLE {{schema}}.gpt_signing_keys, {{schema}}.gpt_logins, {{schema}}.gpt_users, {{schema}}.gpt_clients, {{schema}}.gpt_settings;
