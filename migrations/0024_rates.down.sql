DROP TABLE {{schema}}.gpt_rates;
