package postgres

import (
	"context"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/caddy-scope/caddy-scope/issuer"
)

// The rows of client and user are held, so that disabling one of them either
// comes first and is seen here, or comes after and finds the session. A second is
// added to the session's life: its token is to live as long as was asked for. Nobody
// signed in, and no max_age is met.
const makeOperatorSessionSQL = `
	WITH client AS MATERIALIZED (
		SELECT client_id FROM {s}.gpt_clients WHERE client_id = $1 AND disabled_at IS NULL FOR SHARE),
	account AS MATERIALIZED (
		SELECT id FROM {s}.gpt_users WHERE id = $2 AND disabled_at IS NULL FOR SHARE),
	session AS (
		INSERT INTO {s}.gpt_sessions (user_id, client_id, resource, asserted_by, scopes, granted_scopes, auth_time, expires_at, tokens_expire_at)
		SELECT account.id, client.client_id, $3, $4, $5, $5, to_timestamp(0), clock_timestamp() + make_interval(secs => $6::float8 + 1), clock_timestamp() + make_interval(secs => $6::float8 + 1)
		FROM client, account
		RETURNING *),
	event AS (
		INSERT INTO {s}.gpt_oauth_events (event_type, user_id, client_id, session_id, metadata)
		SELECT 'gpt.oauth.token_issued_by_operator', user_id, client_id, id,
			jsonb_build_object('by', 'operator', 'scopes', scopes, 'resource', resource, 'expires_at', expires_at) FROM session)
	SELECT ` + sessionColumns + ` FROM session`

// OpenOperatorSession is described at issuer.SessionStore.
func (s *Store) OpenOperatorSession(ctx context.Context, o issuer.OperatorSession) (session issuer.Session, err error) {
	err = s.db.write(ctx, "open operator session", func(ctx context.Context, conn *pgxpool.Conn) error {
		session, err = scanSession(conn.QueryRow(ctx, s.db.sql(makeOperatorSessionSQL), o.ClientID, o.UserID, o.Resource, issuer.AssertedByOperator, scopeArray(o.Scopes), o.TTL.Seconds()))
		return err
	})
	return session, err
}
