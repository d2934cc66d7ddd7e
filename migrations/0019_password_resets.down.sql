DROP TABLE {{schema}}.gpt_password_resets;
