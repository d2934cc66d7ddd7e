-- Proofs of possession that were used (RFC 9449 section 11.1): the digest of the
-- key and the jti. On whichever node, never again while one would hold.
CREATE TABLE {{schema}}.gpt_dpop_proofs (
	digest     bytea PRIMARY KEY CHECK (octet_length(digest) = 32),
	expires_at timestamptz NOT NULL
);
CREATE INDEX gpt_dpop_proofs_expires_idx ON {{schema}}.gpt_dpop_proofs (expires_at);
ALTER TABLE {{schema}}.gpt_dpop_proofs ENABLE ROW LEVEL SECURITY;

-- The key, as its JWK thumbprint (RFC 7638), that a public client's refresh
-- tokens, or a code, are bound to. NOT VALID: no row has one yet, and none need
-- be read under the lock.
ALTER TABLE {{schema}}.gpt_sessions ADD COLUMN dpop_jkt text,
	ADD CONSTRAINT gpt_sessions_dpop_check CHECK (length(dpop_jkt) = 43) NOT VALID;
ALTER TABLE {{schema}}.gpt_authorization_codes ADD COLUMN dpop_jkt text,
	ADD CONSTRAINT gpt_codes_dpop_check CHECK (length(dpop_jkt) = 43) NOT VALID;
