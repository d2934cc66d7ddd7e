DROP TABLE {{schema}}.gpt_client_approvals, {{schema}}.gpt_client_documents, {{schema}}.gpt_client_registrations;
