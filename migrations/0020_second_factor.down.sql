-- The version before does not know the way in which these were made.
DELETE FROM {{schema}}.gpt_logins WHERE method = 'password+otp';
DROP TABLE {{schema}}.gpt_recovery_codes;
DROP TABLE {{schema}}.gpt_second_factors;
