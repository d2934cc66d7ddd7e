package postgres

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/oauth"
)

// useClientSessionSQL notes one more token in the client's own session. It
// writes no event: a client that asks a thousand times an hour would fill the
// table with them.
const useClientSessionSQL = `
	UPDATE {s}.gpt_sessions SET
		scopes = ARRAY(SELECT unnest(scopes) UNION SELECT unnest($3::text[]) ORDER BY 1),
		tokens_expire_at = greatest(tokens_expire_at, clock_timestamp() + make_interval(secs => $4::float8)),
		last_active = clock_timestamp()
	WHERE id = (SELECT id FROM {s}.gpt_sessions WHERE user_id = $1 AND client_id = $1 AND resource = $2 AND redirect_uri IS NULL
			AND revoked_at IS NULL AND expires_at > clock_timestamp() + make_interval(secs => $4::float8)
			ORDER BY created_at DESC, id LIMIT 1)
		AND ` + live + ` AND EXISTS (SELECT FROM {s}.gpt_clients WHERE client_id = $1 AND disabled_at IS NULL)
	RETURNING ` + sessionColumns

// lockClientSQL lets one request make the session that several miss. It is a
// statement of its own, so that the next one's snapshot is taken after the wait.
const lockClientSQL = `SELECT pg_advisory_xact_lock(hashtext('gpt_client'), hashtext($1))`

const makeClientSessionSQL = `
	WITH client AS MATERIALIZED (
		SELECT client_id FROM {s}.gpt_clients WHERE client_id = $1 AND disabled_at IS NULL FOR SHARE),
	session AS (
		INSERT INTO {s}.gpt_sessions (user_id, client_id, resource, scopes, granted_scopes, expires_at, tokens_expire_at)
		SELECT client_id, client_id, $2, $3, $3, clock_timestamp() + make_interval(secs => $5::float8), clock_timestamp() + make_interval(secs => $4::float8)
		FROM client
		RETURNING *),
	event AS (
		INSERT INTO {s}.gpt_oauth_events (event_type, user_id, client_id, session_id, ip_address, request_id)
		SELECT 'gpt.oauth.client_session_opened', user_id, client_id, id, $6::text, $7::text FROM session)
	SELECT ` + sessionColumns + ` FROM session`

// OpenClientSession is described at issuer.SessionStore.
func (s *Store) OpenClientSession(ctx context.Context, clientID, resource string, scopes oauth.ScopeSet, lifetime issuer.SessionLifetime, origin issuer.Origin) (session issuer.Session, err error) {
	use := func(ctx context.Context, q interface {
		QueryRow(context.Context, string, ...any) pgx.Row
	}) error {
		session, err = scanSession(q.QueryRow(ctx, s.db.sql(useClientSessionSQL), clientID, resource, scopeArray(scopes), lifetime.AccessTokenTTL.Seconds()))
		return err
	}
	err = s.db.write(ctx, "open client session", func(ctx context.Context, conn *pgxpool.Conn) error {
		if err := use(ctx, conn); !errors.Is(err, pgx.ErrNoRows) {
			return err
		}
		return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, s.db.sql(lockClientSQL), clientID); err != nil {
				return err
			}
			if err := use(ctx, tx); !errors.Is(err, pgx.ErrNoRows) {
				return err
			}
			session, err = scanSession(tx.QueryRow(ctx, s.db.sql(makeClientSessionSQL), clientID, resource, scopeArray(scopes),
				lifetime.AccessTokenTTL.Seconds(), lifetime.TTL.Seconds(), address(origin), requestID(origin)))
			return err
		})
	})
	if err != nil {
		return issuer.Session{}, err
	}
	session.AuthTime = time.Time{} // nobody signed in
	return session, nil
}
