DROP TABLE {{schema}}.gpt_client_assertions, {{schema}}.gpt_pushed_requests, {{schema}}.gpt_device_codes;
