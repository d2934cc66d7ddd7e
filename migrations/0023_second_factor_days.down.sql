ALTER TABLE {{schema}}.gpt_second_factors
	DROP COLUMN day_attempts,
	DROP COLUMN day_since;
