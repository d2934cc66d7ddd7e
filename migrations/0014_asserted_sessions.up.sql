-- The identity provider by whose word a session exists, where its user was not
-- asked: draft-ietf-oauth-identity-assertion-authz-grant. Such a session is found
-- among its user's, which are few.
ALTER TABLE {{schema}}.gpt_sessions ADD COLUMN asserted_by text,
	ADD CONSTRAINT gpt_sessions_asserted_check CHECK (asserted_by IS NULL OR (asserted_by <> '' AND redirect_uri IS NULL)) NOT VALID;
