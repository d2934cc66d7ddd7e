-- What the provider wants to be shown when a user signs out there too, sealed.
ALTER TABLE {{schema}}.gpt_logins ADD COLUMN logout_hint bytea;
