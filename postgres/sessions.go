package postgres

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/caddy-scope/caddy-scope/issuer"
)

// FindSession is described at issuer.SessionStore.
func (s *Store) FindSession(ctx context.Context, sessionID, clientID string) (session issuer.Session, err error) {
	const step = "find session"
	id, ok := parseID(sessionID)
	if !ok {
		return session, wrap(step, issuer.ErrNotFound)
	}
	err = s.db.read(ctx, step, func(ctx context.Context, conn *pgxpool.Conn) error {
		var primary bool
		session, err = scanSession(conn.QueryRow(ctx, s.db.sql(`SELECT `+sessionColumns+`, `+takesWrites+` FROM {s}.gpt_sessions WHERE id = $1 AND client_id = $2 AND `+live), id, clientID), &primary)
		if err == nil && !primary { // introspection would believe it
			return errReadOnly
		}
		return err
	})
	if err != nil {
		return issuer.Session{}, err
	}
	return session, nil
}

// RevokeSession is described at issuer.SessionStore.
func (s *Store) RevokeSession(ctx context.Context, sessionID, clientID, reason string, origin issuer.Origin) error {
	return s.endSession(ctx, "revoke session", `client_id = $2`, sessionID, clientID, reason, origin)
}

// EndUserSession is described at issuer.SessionStore.
func (s *Store) EndUserSession(ctx context.Context, sessionID, userID string, origin issuer.Origin) error {
	return s.endSession(ctx, "end user session", `user_id = $2`, sessionID, userID, "ended_by_user", origin)
}

func (s *Store) endSession(ctx context.Context, step, owner, sessionID, ownerID, reason string, origin issuer.Origin) error {
	id, ok := parseID(sessionID)
	if !ok {
		return wrap(step, issuer.ErrNotFound)
	}
	return s.db.write(ctx, step, func(ctx context.Context, conn *pgxpool.Conn) error {
		var ended bool
		return conn.QueryRow(ctx, s.db.sql(`
			WITH revoked AS (
				UPDATE {s}.gpt_sessions SET revoked_at = clock_timestamp(), revoke_reason = $3
				WHERE id = $1 AND `+owner+` AND `+live+` RETURNING id, user_id, client_id),
			event AS (
				INSERT INTO {s}.gpt_oauth_events (event_type, user_id, client_id, session_id, ip_address, request_id, metadata)
				SELECT 'gpt.oauth.session_revoked', user_id, client_id, id, $4::text, $5::text, jsonb_build_object('reason', $3::text) FROM revoked)
			SELECT true FROM revoked`), id, ownerID, reason, address(origin), requestID(origin)).Scan(&ended)
	})
}

// UserSessions is described at issuer.SessionStore.
func (s *Store) UserSessions(ctx context.Context, userID string) (sessions []issuer.Session, err error) {
	err = s.db.read(ctx, "list user sessions", func(ctx context.Context, conn *pgxpool.Conn) error {
		rows, err := conn.Query(ctx, s.db.sql(`SELECT `+sessionColumns+` FROM {s}.gpt_sessions WHERE user_id = $1 AND `+live+` AND `+direct+` ORDER BY created_at DESC, id LIMIT 100`), userID)
		if err != nil {
			return err
		}
		sessions, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (issuer.Session, error) { return scanSession(row) })
		return err
	})
	return sessions, err
}
