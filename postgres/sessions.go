package postgres

import (
	"cmp"
	"context"
	"errors"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/caddy-scope/caddy-scope/issuer"
)

// FindSession is described at issuer.SessionStore. Concurrent ones share round
// trips.
func (s *Store) FindSession(ctx context.Context, sessionID, clientID string) (issuer.Session, error) {
	const step = "find session"
	id, ok := parseID(sessionID)
	if !ok {
		return issuer.Session{}, wrap(step, issuer.ErrNotFound)
	}
	session, err := s.sessions.join(ctx, id)
	if err == nil && session.ClientID != clientID {
		err = issuer.ErrNotFound
	}
	if err != nil {
		return issuer.Session{}, wrap(step, err)
	}
	return session, nil
}

func (s *Store) findSessions(ctx context.Context, batch []*passenger[uuid.UUID, issuer.Session]) {
	ids := make(pgtype.FlatArray[pgtype.UUID], len(batch))
	for i, p := range batch {
		ids[i] = pgtype.UUID{Bytes: p.ask, Valid: true}
	}
	lookUp[uuid.UUID, issuer.Session]{
		step: "read sessions",
		sql:  `SELECT ` + sessionColumns + `, ` + takesWrites + ` FROM {s}.gpt_sessions WHERE id = ANY ($1) AND ` + live, args: []any{ids},
		scan: func(row pgx.Row) (id uuid.UUID, session issuer.Session, err error) {
			var primary bool
			if session, err = scanSession(row, &primary); err != nil {
				return id, session, err
			}
			if !primary { // introspection would believe it
				return id, session, errReadOnly
			}
			id, err = uuid.Parse(session.ID)
			return id, session, err
		},
	}.answer(ctx, s.db, batch)
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
		err := conn.QueryRow(ctx, s.db.sql(`
			WITH revoked AS (
				UPDATE {s}.gpt_sessions SET revoked_at = clock_timestamp(), revoke_reason = $3
				WHERE id = $1 AND `+owner+` AND `+live+` RETURNING id, user_id, client_id),
			event AS (
				INSERT INTO {s}.gpt_oauth_events (event_type, user_id, client_id, session_id, ip_address, request_id, metadata)
				SELECT 'gpt.oauth.session_revoked', user_id, client_id, id, $4::text, $5::text, jsonb_build_object('reason', $3::text) FROM revoked)
			SELECT true FROM revoked`), id, ownerID, reason, address(origin), requestID(origin)).Scan(&ended)
		if errors.Is(err, pgx.ErrNoRows) {
			return cmp.Or(s.confirmEnded(ctx, conn, `id = $1 AND `+owner, id, ownerID), err)
		}
		return err
	})
}

// confirmEnded has a step that found nothing to end wait as its commit would.
// What has ended may be so on this server only, because the wait for the standby
// was broken off: who was told that this failed, and asks again, must not hear
// that it is done while a failover would undo it. The lock of a row that has
// ended is the least that a standby has to confirm; where there are no such
// standbys, or no such row, nothing is written. M4.3.
func (s *Store) confirmEnded(ctx context.Context, conn *pgxpool.Conn, which string, args ...any) error {
	_, err := conn.Exec(ctx, s.db.sql(`
		SELECT FROM {s}.gpt_sessions WHERE `+which+` AND revoked_at IS NOT NULL AND current_setting('synchronous_standby_names') <> ''
		LIMIT 1 FOR UPDATE`), args...)
	return err
}

// UserSessions is described at issuer.SessionStore.
func (s *Store) UserSessions(ctx context.Context, userID string) ([]issuer.Session, error) {
	return list(ctx, s.db, "list user sessions", func(row pgx.Row) (issuer.Session, error) { return scanSession(row) },
		`SELECT `+sessionColumns+` FROM {s}.gpt_sessions WHERE user_id = $1 AND `+live+` AND `+direct+` ORDER BY created_at DESC, id LIMIT 100`, userID)
}
