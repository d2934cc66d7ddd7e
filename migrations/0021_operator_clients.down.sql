-- The clients go with their sessions: nothing else knows what they are.
DELETE FROM {{schema}}.gpt_clients WHERE client_id LIKE 'op\_%';
DROP TABLE {{schema}}.gpt_operator_clients;
