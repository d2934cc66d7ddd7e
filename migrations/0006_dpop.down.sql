ALTER TABLE {{schema}}.gpt_authorization_codes DROP COLUMN dpop_jkt;
ALTER TABLE {{schema}}.gpt_sessions DROP COLUMN dpop_jkt;
DROP TABLE {{schema}}.gpt_dpop_proofs;
