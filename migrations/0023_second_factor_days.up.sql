-- Attempts at codes within a day, besides those of the last minutes: patience must not
-- get in either.
ALTER TABLE {{schema}}.gpt_second_factors
	ADD COLUMN day_attempts integer NOT NULL DEFAULT 0 CHECK (day_attempts >= 0),
	ADD COLUMN day_since    timestamptz NOT NULL DEFAULT now();
