package postgres

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"

	"github.com/caddy-scope/caddy-scope/issuer"
)

// lockParentSQL holds the session that is made from: ending it either comes
// first and is seen here, or comes after and finds what was made. It also keeps
// two requests from making it twice.
const lockParentSQL = `SELECT true FROM {s}.gpt_sessions WHERE id = $1 AND client_id = $2 AND ` + live + ` FOR NO KEY UPDATE`

// useDelegatedSQL notes one more token. The idle bound follows the parent's.
const useDelegatedSQL = `
	UPDATE {s}.gpt_sessions s SET
		scopes = ARRAY(SELECT unnest(s.scopes) UNION SELECT unnest($4::text[]) ORDER BY 1),
		tokens_expire_at = greatest(s.tokens_expire_at, clock_timestamp() + make_interval(secs => $5::float8)),
		idle_expires_at = (SELECT idle_expires_at FROM {s}.gpt_sessions WHERE id = $1), last_active = clock_timestamp()
	WHERE id = (SELECT session_id FROM {s}.gpt_delegated_sessions WHERE parent_id = $1 AND client_id = $2 AND resource = $3)
		AND revoked_at IS NULL AND expires_at > clock_timestamp()
		AND EXISTS (SELECT FROM {s}.gpt_clients WHERE client_id = $2 AND disabled_at IS NULL)
	RETURNING ` + sessionColumns

// forgetDelegatedSQL makes room for a new one where the last was ended by itself.
const forgetDelegatedSQL = `DELETE FROM {s}.gpt_delegated_sessions WHERE parent_id = $1 AND client_id = $2 AND resource = $3`

const makeDelegatedSQL = `
	WITH client AS MATERIALIZED (
		SELECT client_id FROM {s}.gpt_clients WHERE client_id = $2 AND disabled_at IS NULL FOR SHARE),
	session AS (
		INSERT INTO {s}.gpt_sessions (user_id, client_id, resource, scopes, granted_scopes, auth_time, expires_at, idle_expires_at, tokens_expire_at)
		SELECT p.user_id, client.client_id, $3, $4, $4, p.auth_time, p.expires_at, p.idle_expires_at, clock_timestamp() + make_interval(secs => $5::float8)
		FROM {s}.gpt_sessions p, client WHERE p.id = $1
		RETURNING *),
	link AS (
		INSERT INTO {s}.gpt_delegated_sessions (session_id, parent_id, client_id, resource) SELECT id, $1, client_id, resource FROM session),
	event AS (
		INSERT INTO {s}.gpt_oauth_events (event_type, user_id, client_id, session_id, ip_address, request_id, metadata)
		SELECT 'gpt.oauth.session_delegated', user_id, client_id, id, $6::text, $7::text, jsonb_build_object('parent', $1::uuid) FROM session)
	SELECT ` + sessionColumns + ` FROM session`

// DelegateSession is described at issuer.SessionStore.
func (s *Store) DelegateSession(ctx context.Context, d issuer.Delegation, origin issuer.Origin) (session issuer.Session, err error) {
	const step = "delegate session"
	parent, ok := parseID(d.ParentID)
	if !ok {
		return session, wrap(step, issuer.ErrNotFound)
	}
	err = s.db.write(ctx, step, inTx(func(ctx context.Context, tx pgx.Tx) error {
		var alive bool
		if err := tx.QueryRow(ctx, s.db.sql(lockParentSQL), parent, d.ParentClientID).Scan(&alive); err != nil {
			return err
		}
		key := []any{parent, d.ClientID, d.Resource}
		what := append(key, scopeArray(d.Scopes), d.AccessTokenTTL.Seconds())
		if session, err = scanSession(tx.QueryRow(ctx, s.db.sql(useDelegatedSQL), what...)); !errors.Is(err, pgx.ErrNoRows) {
			return err
		}
		if _, err := tx.Exec(ctx, s.db.sql(forgetDelegatedSQL), key...); err != nil {
			return err
		}
		session, err = scanSession(tx.QueryRow(ctx, s.db.sql(makeDelegatedSQL), append(what, address(origin), requestID(origin))...))
		return err
	}))
	if err != nil {
		return issuer.Session{}, err
	}
	return session, nil
}
