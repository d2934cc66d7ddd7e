DROP TRIGGER gpt_client_disabled ON {{schema}}.gpt_clients;
DROP TRIGGER gpt_user_deleted ON {{schema}}.gpt_users;
DROP TRIGGER gpt_user_disabled ON {{schema}}.gpt_users;
DROP TRIGGER gpt_sessions_truncated ON {{schema}}.gpt_sessions;
DROP TRIGGER gpt_session_deleted ON {{schema}}.gpt_sessions;
DROP TRIGGER gpt_session_updated ON {{schema}}.gpt_sessions;
DROP TRIGGER gpt_session_guard ON {{schema}}.gpt_sessions;
DROP FUNCTION {{schema}}.gpt_client_ended(), {{schema}}.gpt_user_ended(), {{schema}}.gpt_sessions_truncated(), {{schema}}.gpt_session_changed(), {{schema}}.gpt_session_guard();
DROP TABLE {{schema}}.gpt_revocations;
